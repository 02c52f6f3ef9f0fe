//! Who a caller is: the node's users, and the identity that good credentials give.
//!
//! For now the users are the two that every v5 cluster starts with, `admin` and `ops`, with their first password. They
//! sit behind [`Users`] so that users kept in `$user-` streams, with salted hashes, can take their place without anyone
//! else noticing. What an identity may do is the business of [`access`](super::access).

use std::hint::black_box;
use std::sync::Arc;

use crate::codec::client::CredentialsView;

/// The role that may do everything.
pub const ADMINS: &str = "$admins";

/// The role for operators.
pub const OPS: &str = "$ops";

/// The role that everybody has, anonymous callers too.
pub const EVERYBODY: &str = "$all";

/// The password that built-in users start with.
const FIRST_PASSWORD: &str = "changeit";

/// On whose behalf a request runs. Cheap to copy around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// The node itself, or another node of the cluster: may do everything.
    System,
    /// A user whose credentials were good.
    User(Arc<User>),
}

/// A user as the access rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login; also one of the user's roles.
    pub login: Box<str>,
    /// The groups: the user's other roles.
    pub groups: Vec<Box<str>>,
}

impl Identity {
    /// True when the caller has `role`: its login, one of its groups, or the role of everybody.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        role == EVERYBODY
            || match self {
                Identity::Anonymous => false,
                Identity::System => true,
                Identity::User(user) => *user.login == *role || user.groups.iter().any(|group| **group == *role),
            }
    }

    /// True for those who pass every access check.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.has_role(ADMINS)
    }

    /// True for those who may operate the node (scavenge, persistent subscriptions).
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.is_admin() || self.has_role(OPS)
    }
}

#[derive(Debug)]
struct Account {
    user: Arc<User>,
    password: Box<[u8]>,
}

/// The users of the node. Shared by all edges; does not change yet.
#[derive(Debug)]
pub struct Users {
    accounts: Vec<Account>,
}

impl Default for Users {
    fn default() -> Users {
        Users::built_in()
    }
}

impl Users {
    /// `admin` and `ops`, each with its group and the first password.
    #[must_use]
    pub fn built_in() -> Users {
        let account = |login: &str, group: &str| Account {
            user: Arc::new(User { login: login.into(), groups: vec![group.into()] }),
            password: FIRST_PASSWORD.as_bytes().into(),
        };
        Users { accounts: vec![account("admin", ADMINS), account("ops", OPS)] }
    }

    /// The identity behind `credentials`; `None` when they are not good. Takes as long for an unknown login as for a
    /// wrong password.
    #[must_use]
    pub fn authenticate(&self, credentials: CredentialsView<'_>) -> Option<Identity> {
        let account = self.accounts.iter().find(|account| account.user.login.as_bytes() == credentials.login);
        let password = account.map_or(FIRST_PASSWORD.as_bytes(), |account| &account.password);
        let is_good = equal_in_constant_time(password, credentials.password);
        account.filter(|_| is_good).map(|account| Identity::User(Arc::clone(&account.user)))
    }
}

/// Compares without stopping at the first difference: the time says nothing about how much of a guess was right. It
/// depends on the length of the guess only.
fn equal_in_constant_time(secret: &[u8], guess: &[u8]) -> bool {
    let mut difference = u8::from(secret.len() != guess.len());
    for (index, byte) in guess.iter().enumerate() {
        let wanted = secret.get(index).copied().unwrap_or_default();
        difference = black_box(difference | (wanted ^ byte));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticate(login: &str, password: &str) -> Option<Identity> {
        let (login, password) = (login.as_bytes(), password.as_bytes());
        Users::built_in().authenticate(CredentialsView { login, password })
    }

    #[test]
    fn the_built_in_users_have_their_groups() {
        let admin = authenticate("admin", "changeit").unwrap();
        assert!(admin.is_admin() && admin.is_operator() && admin.has_role("admin") && !admin.has_role("ops"));
        let ops = authenticate("ops", "changeit").unwrap();
        assert!(!ops.is_admin() && ops.is_operator() && ops.has_role("$ops") && ops.has_role("$all"));
        assert!(!Identity::Anonymous.is_operator() && Identity::Anonymous.has_role("$all"));
    }

    #[test]
    fn anything_else_is_refused() {
        let bad =
            [("admin", ""), ("admin", "changei"), ("admin", "changeit2"), ("admin", "Changeit"), ("Admin", "changeit")];
        for (login, password) in bad.into_iter().chain([("", "changeit"), ("nobody", "changeit"), ("ops", "changeiu")])
        {
            assert_eq!(authenticate(login, password), None, "{login} {password}");
        }
        let (login, password) = (b"admin\xff", b"changeit");
        assert_eq!(Users::built_in().authenticate(CredentialsView { login, password }), None);
    }
}
