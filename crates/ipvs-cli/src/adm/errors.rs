//! What a refused request is called, by request and errno.

use std::io;

use ipvs_netlink::{ClientError, Errno};

use super::options::Verb;

/// The text for a user, without the end of the line.
pub(crate) fn text_of(verb: Verb, error: &ClientError) -> String {
    match error {
        ClientError::Refused(errno) => refusal(verb, *errno),
        other => system_text(other),
    }
}

/// The text of a refusal, in the words of the kernel's tool.
fn refusal(verb: Verb, errno: Errno) -> String {
    let is_service = matches!(verb, Verb::AddService | Verb::EditService);
    let is_server = matches!(verb, Verb::AddServer | Verb::EditServer | Verb::DeleteServer);
    let text = match errno {
        Errno::EXIST if is_service => "Service already exists",
        Errno::EXIST if is_server => "Destination already exists",
        Errno::EXIST if verb == Verb::StartDaemon => "Daemon has already run",
        Errno::NOENT if is_service => "Scheduler or persistence engine not found",
        Errno::NOENT if is_server => "No such destination",
        Errno::SRCH if is_server => "Service not defined",
        Errno::SRCH if verb == Verb::StopDaemon => "No daemon is running",
        Errno::SRCH => "No such service",
        Errno::PERM => "Permission denied (you must be root)",
        Errno::INVAL => {
            "Invalid operation.  Possibly wrong module version, address not unicast, ..."
        }
        Errno::NOPROTOOPT => "Protocol not available",
        Errno::NOMEM => "Memory allocation problem",
        // No kernel refuses a daemon so; ours does for the time being.
        Errno::OPNOTSUPP if verb == Verb::StartDaemon => {
            "This director does not synchronise connections"
        }
        Errno::OPNOTSUPP => "Operation not supported with IPv6",
        Errno::AFNOSUPPORT => "Operation not supported with specified address family",
        Errno::MSGSIZE => "Module is wrong version",
        other => return c_text(other.raw_os_error()),
    };
    text.to_owned()
}

/// The text of an error that is no refusal.
pub(crate) fn system_text(error: &ClientError) -> String {
    match error {
        ClientError::Refused(Errno::PERM) => "Permission denied (you must be root)".to_owned(),
        ClientError::Refused(errno) => c_text(errno.raw_os_error()),
        ClientError::Io(error) => error.raw_os_error().map_or_else(|| error.to_string(), c_text),
        other => other.to_string(),
    }
}

/// The C library's text for an errno.
fn c_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.rsplit_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_errno_is_called_differently_by_request() {
        let srch = ClientError::Refused(Errno::SRCH);
        assert_eq!(text_of(Verb::DeleteService, &srch), "No such service");
        assert_eq!(text_of(Verb::AddServer, &srch), "Service not defined");
        assert_eq!(text_of(Verb::StopDaemon, &srch), "No daemon is running");
    }

    #[test]
    fn other_errnos_have_the_text_of_the_c_library() {
        let range = ClientError::Refused(Errno::RANGE);
        assert_eq!(text_of(Verb::AddServer, &range), "Numerical result out of range");
        let nodev = ClientError::Refused(Errno::NODEV);
        assert_eq!(text_of(Verb::StartDaemon, &nodev), "No such device");
    }
}
