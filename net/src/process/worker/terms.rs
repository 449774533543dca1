//! What a role says about the workers that it starts.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use super::badge::Badge;

/// The name and the settings of a role.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: Arc<str>,
    /// The name with the types, which tells roles apart that have the same name.
    pub(super) title: Arc<str>,
    /// How many requests a worker has at one time.
    pub(super) max_in_flight: usize,
    /// How long a message may be.
    pub(super) max_message: usize,
    /// How long a worker may take until it serves.
    pub(super) start_timeout: Duration,
    /// What the worker's command line and environment have besides.
    pub(super) args: Vec<OsString>,
    pub(super) envs: Vec<(OsString, OsString)>,
}

impl Terms {
    pub(super) fn badge(&self) -> Badge {
        Badge { title: self.title.to_string(), limit: self.max_message }
    }
}
