//! What a greeting of ours says, and what one of theirs must say.

use madang_wire::FrameLimit;
use madang_wire::lan::{Greeting, RefusalReason};

use super::Core;
use super::embryos::Origin;

impl Core {
    /// `ticket`: of a link whose connection broke while it waited.
    pub(super) fn own_greeting<'a>(&'a self, frame_limit: FrameLimit, ticket: &'a [u8]) -> Greeting<'a> {
        let settings = &self.fabric.settings;
        Greeting {
            ticket,
            app_version: settings.app_version,
            frame_limit,
            incarnation: settings.incarnation,
            schema_hash: settings.schema_hash,
            service: &settings.service,
            node: &settings.node,
        }
    }

    /// Whether the other side's greeting suits ours.
    pub(super) fn check_greeting(&self, theirs: &Greeting<'_>, whose: Origin) -> Result<(), RefusalReason> {
        self.check_versions(theirs.app_version, theirs.schema_hash, whose)
    }

    /// Whether the other side's versions suit ours.
    pub(super) fn check_versions(
        &self,
        app_version: u32,
        schema_hash: u64,
        whose: Origin,
    ) -> Result<(), RefusalReason> {
        let settings = &self.fabric.settings;
        let app_version_min = match whose {
            Origin::Link(_) => settings.app_version_min,
            Origin::Gate { exempt: true, .. } => 0,
            Origin::Gate { .. } => settings.app_version_min.max(self.fabric.rules.app_version_min()),
        };
        if app_version < app_version_min {
            return Err(RefusalReason::AppVersion);
        }
        if schema_hash != settings.schema_hash && schema_hash != 0 && settings.schema_hash != 0 {
            return Err(RefusalReason::Schema);
        }
        Ok(())
    }
}
