//! `mtproxy run`: brings the parts up in order and keeps them until the end.

use std::process::ExitCode;

use crate::complaint::{Complaint, Complaints};
use crate::settings::Settings;
use crate::state;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What kept it from starting, or stopped it.
pub fn serve(mut settings: Settings) -> Result<ExitCode, Complaints> {
    if settings.secrets.is_empty()
        && let Some(state_dir) = &settings.state_dir
    {
        let kept = state::kept_secret(state_dir)?;
        settings.secrets.push(("generated".to_owned(), kept.secret));
    }
    Err(Complaint::about_host(
        "found no workers in this build; expected them to serve clients; build a later version",
    )
    .into())
}
