//! Which values make no sense, alone or together.

use madang_packet::{HEADROOM, PoolSettings};

use super::Settings;
use crate::error::SettingError;

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    /// The first wrong one, by key, with what would be right.
    pub fn check(&self) -> Result<(), SettingError> {
        self.check_all_but_the_pool()?;
        self.check_pool()
    }

    /// A pool so small that shards refuse each other memory that idles: sends would fail and peers be cut off with hardly
    /// anything queued.
    fn check_pool(&self) -> Result<(), SettingError> {
        let Settings { pool_budget_bytes: budget, workers, frame_limit_bytes: longest, .. } = *self;
        // A message is kept with its header while the rest of it comes.
        let least = PoolSettings::least_budget_bytes(workers, longest as usize + HEADROOM);
        if budget < least {
            let problem = format!(
                "{budget} is too small: with {workers} workers and a frame_limit_bytes of {longest} it must be at least {least}"
            );
            return Err(SettingError::new("pool_budget_bytes", problem));
        }
        Ok(())
    }

    /// For the simulation, which starves pools on purpose.
    pub(crate) fn check_all_but_the_pool(&self) -> Result<(), SettingError> {
        let wrong = |key: &str, problem: &str| Err(SettingError::new(key, problem));
        let at_least_one = [
            ("workers", self.workers as u64),
            ("max_sessions", self.max_sessions as u64),
            ("embryos_max", self.embryos_max as u64),
            ("recv_buffers", u64::from(self.recv_buffers)),
            ("turn_completions_max", self.turn_completions_max as u64),
            ("turn_handshakes_max", self.turn_handshakes_max as u64),
            ("turn_us_max", self.turn_us_max),
            ("backlog", u64::from(self.backlog)),
            ("queue_soft_bytes", self.queue_soft_bytes as u64),
            ("queue_hard_messages", self.queue_hard_messages as u64),
            ("mailbox_messages_max", self.mailbox_messages_max as u64),
            ("greeting_timeout_ms", self.greeting_timeout_ms),
            ("partial_timeout_ms", self.partial_timeout_ms),
            ("leave_timeout_ms", self.leave_timeout_ms),
            ("stop_timeout_ms", self.stop_timeout_ms),
            ("recv_over_ms", self.recv_over_ms),
            ("reconnect_min_ms", self.reconnect_min_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("rules_max", self.rules_max as u64),
            ("queue_update_ms", self.queue_update_ms),
            ("prefix_wide_factor", u64::from(self.prefix_wide_factor)),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return wrong(key, "must be at least 1");
            }
        }
        if !(-20..=19).contains(&self.nice) {
            return wrong("nice", "-20 to 19");
        }
        if self.workers > 256 {
            return wrong("workers", "at most 256");
        }
        if self.handshake_threads > 256 {
            return wrong("handshake_threads", "at most 256");
        }
        if crate::id::SlotLayout::new(self.workers, self.slots_per_shard()).is_none() {
            return wrong(
                "max_sessions",
                "workers times sessions (with slack) must fit 24 bits: lower one of them",
            );
        }
        if self.rules_max > 1 << 20 {
            return wrong("rules_max", "at most 1048576: each change copies the table; use wider prefixes");
        }
        if self.queue_max > 1 << 20 {
            return wrong("queue_max", "at most 1048576: each waiter has a connection");
        }
        if self.prefix_burst_max == Some(0) {
            return wrong("prefix_burst_max", "must be at least 1; to have no limit set prefix_rate_max = 0");
        }
        if madang_wire::FrameLimit::new(self.frame_limit_bytes).is_none() {
            return wrong("frame_limit_bytes", "1 to 16777215");
        }
        if self.queue_hard_bytes < self.queue_soft_bytes {
            return wrong("queue_hard_bytes", "must not be below queue_soft_bytes");
        }
        if self.queue_hard_bytes < self.frame_limit_bytes as usize {
            return wrong("queue_hard_bytes", "must hold one message of frame_limit_bytes");
        }
        if self.queue_hard_bytes > u32::MAX as usize {
            return wrong("queue_hard_bytes", "at most 4294967295");
        }
        if self.overload_heavy_ms < self.overload_lag_ms {
            return wrong("overload_heavy_ms", "must not be below overload_lag_ms");
        }
        if self.pool_short_bytes > self.pool_budget_bytes {
            return wrong("pool_short_bytes", "must not be above pool_budget_bytes");
        }
        if !(1..=600_000).contains(&self.recv_burst_ms) {
            return wrong("recv_burst_ms", "1 to 600000");
        }
        for (key, per_s) in [
            ("recv_bytes_per_s", self.recv_bytes_per_s),
            ("recv_decoded_bytes_per_s", self.recv_decoded_bytes_per_s),
        ] {
            let at_once = u128::from(per_s) * u128::from(self.recv_burst_ms) / 1_000;
            if per_s > 0 && at_once < u128::from(self.frame_limit_bytes) {
                return wrong(
                    key,
                    "with recv_burst_ms it must let one message of frame_limit_bytes through at once",
                );
            }
        }
        if !(10..=600_000).contains(&self.heartbeat_ms) {
            return wrong("heartbeat_ms", "10 to 600000");
        }
        if self.dead_after_ms <= self.heartbeat_ms {
            return wrong(
                "dead_after_ms",
                "must be above heartbeat_ms: a peer is not dead before the next beat",
            );
        }
        if u32::try_from(self.dead_after_ms).is_err() {
            return wrong("dead_after_ms", "at most 4294967295");
        }
        if self.reconnect_max_ms < self.reconnect_min_ms {
            return wrong("reconnect_max_ms", "must not be below reconnect_min_ms");
        }
        for (key, name) in [("service", &self.service), ("node", &self.node)] {
            if name.len() > madang_wire::lan::NAME_MAX || name.contains(char::is_control) {
                return wrong(key, "at most 64 bytes, no control characters");
            }
        }
        if self.suites.is_empty() {
            return wrong("suites", "name at least one: aes-gcm, chacha-poly");
        }
        self.secret.check()?;
        Ok(())
    }
}
