//! Who may do what at the socket.

use std::os::fd::AsFd;

use ipvs_netlink::Access;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use rustix::net::sockopt::socket_peercred;

use crate::DaemonError;

/// Who may read the configuration without being allowed to change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Nobody.
    #[default]
    None,
    /// Members of the group of this name.
    Group(String),
    /// Everybody.
    All,
}

/// Rights of clients, by who they are.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    /// Whose members may do everything.
    writers: Option<Gid>,
    readers: Allowed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Nobody,
    Group(Gid),
    Everybody,
}

impl Rights {
    /// Looks up the groups.
    pub(crate) fn find(writers: Option<&str>, readers: &Readers) -> Result<Self, DaemonError> {
        let readers = match readers {
            Readers::None => Allowed::Nobody,
            Readers::Group(name) => Allowed::Group(group(name)?),
            Readers::All => Allowed::Everybody,
        };
        Ok(Self { writers: writers.map(group).transpose()?, readers })
    }

    /// The group that the socket's file belongs to, and its mode: as many may connect as
    /// have a right, and who has none of those that had to be let in is told so.
    pub(crate) fn of_file(&self) -> (Option<Gid>, u32) {
        match (self.writers, self.readers) {
            (None, Allowed::Nobody) => (None, 0o600),
            (Some(group), Allowed::Nobody) => (Some(group), 0o660),
            (writers, _) => (writers, 0o666),
        }
    }

    /// What the client at the other end may do.
    pub(crate) fn of_client(&self, socket: impl AsFd) -> Access {
        let Ok(client) = socket_peercred(socket) else { return Access::None };
        let uid = Uid::from_raw(client.uid.as_raw());
        if uid.is_root() || uid == Uid::effective() {
            return Access::Admin;
        }
        let primary = Gid::from_raw(client.gid.as_raw());
        let is_in = |group| group == primary || groups_of(uid, primary).contains(&group);
        if self.writers.is_some_and(is_in) {
            return Access::Admin;
        }
        match self.readers {
            Allowed::Everybody => Access::Read,
            Allowed::Group(group) if is_in(group) => Access::Read,
            Allowed::Group(_) | Allowed::Nobody => Access::None,
        }
    }
}

fn group(name: &str) -> Result<Gid, DaemonError> {
    let found = Group::from_name(name).ok().flatten();
    found.map(|group| group.gid).ok_or_else(|| DaemonError::NoGroup(name.to_owned()))
}

/// The groups that the user database has a user in.
fn groups_of(uid: Uid, primary: Gid) -> Vec<Gid> {
    let user = User::from_uid(uid).ok().flatten();
    let name = user.and_then(|user| std::ffi::CString::new(user.name).ok());
    name.and_then(|name| getgrouplist(&name, primary).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn no_more_may_connect_than_have_a_right() {
        let file = |writers, readers| Rights::find(writers, &readers).unwrap().of_file();
        let root = Some(Gid::from_raw(0));
        assert_eq!(file(None, Readers::None), (None, 0o600));
        assert_eq!(file(Some("root"), Readers::None), (root, 0o660));
        assert_eq!(file(Some("root"), Readers::All), (root, 0o666));
        assert_eq!(file(None, Readers::Group("root".to_owned())), (None, 0o666));
    }

    #[test]
    fn the_user_of_the_daemon_may_do_everything() {
        let (one, _other) = UnixStream::pair().unwrap();
        let rights = Rights::find(None, &Readers::None).unwrap();
        assert_eq!(rights.of_client(&one), Access::Admin);
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error() {
        let error = Rights::find(Some("no-such-group"), &Readers::None).unwrap_err();
        assert!(error.to_string().contains("no-such-group"), "{error}");
    }
}
