//! The contract suite: every driver runs the same cases.
//!
//! A case is a function over a [`rig::Rig`]; [`station::Station`] puts a referee beside the driver, which checks on each
//! completion what holds always (one terminal per operation, silence while paused, no name after its retirement, …), and
//! at the end that nothing is left. The table at the bottom makes each case a test of each driver:
//!
//! - `simulated`: the simulated world on a good day;
//! - `unruly`: the same with all that the contract permits, over a number of seeds (`MADANG_SEED=n` replays one);
//! - `readiness`, `uring` and `iocp`: this machine. Where io_uring is refused its cases say so in a line.

#![allow(unreachable_pub)] // a test binary has no outside

mod cases_accept;
mod cases_connect;
mod cases_leave;
mod cases_limits;
mod cases_poll;
mod cases_receive;
mod cases_sleep;
mod cases_stream;
mod chaos;
mod rig;
mod rig_sim;
mod rig_system;
mod station;

macro_rules! contract {
    (every driver $every:tt those that block $blocking:tt) => {
        mod simulated {
            contract!(@each crate::rig_sim::run_calm, $every);
        }
        mod unruly {
            contract!(@each crate::rig_sim::run_unruly, $every);
        }
        #[cfg(unix)]
        mod readiness {
            use madang_driver::readiness::Readiness;
            contract!(@each crate::rig_system::run::<Readiness>, $every);
            contract!(@each crate::rig_system::run::<Readiness>, $blocking);
        }
        #[cfg(target_os = "linux")]
        mod uring {
            use madang_driver::uring::Uring;
            contract!(@each crate::rig_system::run::<Uring>, $every);
            contract!(@each crate::rig_system::run::<Uring>, $blocking);
        }
        #[cfg(windows)]
        mod iocp {
            use madang_driver::iocp::Iocp;
            contract!(@each crate::rig_system::run::<Iocp>, $every);
            contract!(@each crate::rig_system::run::<Iocp>, $blocking);
        }
        #[cfg(windows)]
        mod iocp_packets_always {
            contract!(@each crate::rig_system::run_with_packets_always, $every);
        }
        #[cfg(windows)]
        mod iocp_without_send_buffers {
            use madang_driver::iocp::Iocp;
            contract!(@each crate::rig_system::run_without_send_buffers::<Iocp>, $every);
        }
        #[cfg(target_os = "linux")]
        mod uring_own_file_table {
            use madang_driver::uring::Uring;
            contract!(@each crate::rig_system::run_with_own_file_table::<Uring>, $every);
        }
    };
    (@each $run:expr, { $($file:ident { $($case:ident,)+ })+ }) => {
        $($(#[test] fn $case() { $run(crate::$file::$case) })+)+
    };
}

contract! {
    every driver {
        cases_stream {
            k07_bytes_keep_their_order_both_ways,
            k07_a_message_cut_anywhere_arrives_whole,
            k07_a_send_of_any_number_of_pieces_leaves_whole_and_in_order,
            k07_short_writes_to_a_slow_reader_continue_at_the_exact_byte,
            data_that_came_before_the_first_receive_is_told,
            s03_many_connections_do_not_mix_their_bytes,
            k03_half_close_sends_the_tail_and_drains_the_peer,
        }
        cases_receive {
            a_paused_receive_is_silent_and_loses_nothing,
            bytes_that_race_a_pause_are_told_once_and_in_order,
            a_pause_holds_the_peer_back_and_keeps_a_bounded_part,
            an_end_that_comes_in_a_pause_is_told_after_the_bytes_before_it,
            an_abort_ends_a_paused_receive,
            u01_k13_a_want_of_buffers_starves_nobody_and_does_not_spin,
            u19_a_loud_connection_does_not_silence_a_quiet_one,
            eof_is_told_once_and_behind_the_bytes,
            an_idle_connection_pins_no_buffer,
        }
        cases_leave {
            k16_a_reset_by_the_peer_ends_each_operation_once_at_every_point,
            a_send_to_a_peer_that_is_gone_fails_without_a_signal_k18,
            an_abort_frees_a_send_that_a_peer_never_reads,
            k01_k02_an_abort_that_races_data_and_a_send_ends_each_once,
            s02_a_send_may_end_before_the_first_receive_is_started,
            k04_a_peer_that_lingers_in_half_close_is_left_by_abort,
            k09_an_index_that_is_used_again_has_another_generation,
            u14_k06_shutdown_with_work_in_flight_leaks_nothing,
            shutdown_of_an_idle_driver_is_quick,
        }
        cases_accept {
            an_accepted_peer_comes_with_both_addresses,
            k10_dropping_a_peer_at_the_door_closes_it,
            a_peer_is_attached_to_another_shard_than_accepted_it,
            while_accepting_is_paused_peers_wait_in_the_backlog,
            unlisten_has_a_last_word_and_frees_name_and_port,
            k11_k12_a_peer_that_is_dead_before_it_is_accepted_leaks_nothing,
            a_port_in_use_is_an_error_that_names_the_address,
            wildcards_and_ipv6_are_reached_and_tell_the_real_local_address,
            k05_a_port_with_connections_in_time_wait_is_bound_again_at_once,
            each_listener_tells_its_own_peers_and_the_table_of_listeners_is_bounded,
            a_burst_at_the_door_is_accepted_whole,
            a_full_connection_table_refuses_and_closes,
        }
        cases_connect {
            a_connect_tells_our_address_and_carries_bytes_both_ways,
            a_refused_connect_says_so_once_and_is_retired,
            k17_a_connect_that_races_its_abort_ends_exactly_once,
            a_local_address_that_is_not_ours_fails_at_once,
        }
        cases_poll {
            poll_tells_no_more_than_asked_and_keeps_the_rest,
            what_ended_inside_a_submit_is_told_without_sleeping,
            u13_a_tiny_submission_queue_is_slow_and_right,
            a_batch_waits_for_its_deadline_and_then_comes_whole,
            time_moves_only_in_poll,
            entropy_differs_between_draws_and_drivers,
            a_wake_before_the_poll_is_not_lost_and_a_waker_outlives_its_driver,
        }
        chaos {
            chaos_loses_doubles_and_alters_nothing,
        }
    }
    those that block {
        cases_sleep {
            a_sleeping_driver_is_woken_from_another_thread,
            a_wake_is_spent_by_the_poll_it_ended,
            k21_a_deadline_is_never_early_and_no_busy_wait,
            a_wait_for_more_than_can_ever_come_sleeps_until_its_deadline,
            a_poll_that_shall_not_sleep_does_not,
            a_sleeping_driver_is_woken_by_its_connections,
        }
    }
}

/// Cases that change what the whole process has: on real systems each starts this binary once more, for itself. Windows has
/// no limit that a process could lower for itself; there the driver's own tests have the case.
mod limits {
    use crate::cases_limits::k15_at_the_descriptor_limit_accepting_stalls_without_spinning_and_recovers as k15;

    #[test]
    fn k15_simulated() {
        crate::rig_sim::run_calm(k15);
        crate::rig_sim::run_unruly(k15);
    }

    #[cfg(unix)]
    #[test]
    fn k15_readiness() {
        crate::rig_system::in_own_process("limits::k15_readiness_alone");
    }

    #[cfg(unix)]
    #[test]
    #[ignore = "k15_readiness starts it in a process of its own"]
    fn k15_readiness_alone() {
        crate::rig_system::run::<madang_driver::readiness::Readiness>(k15);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn k15_uring() {
        crate::rig_system::in_own_process("limits::k15_uring_alone");
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[ignore = "k15_uring starts it in a process of its own"]
    fn k15_uring_alone() {
        crate::rig_system::run::<madang_driver::uring::Uring>(k15);
    }
}
