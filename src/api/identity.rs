//! On whose behalf a package runs: its own credentials, the connection's, or nobody's.

use crate::api::edge::EdgeState;
use crate::api::session::Session;
use crate::api::users::Identity;
use crate::codec::client::response::{self, AuthenticationRefusal};
use crate::codec::client::{Credentials, Package, PackageView};

/// What Authenticate left on a connection. Kept when it was refused too: such a connection's requests are checked, and
/// refused, each time, until the user exists.
#[derive(Debug)]
pub(super) struct DefaultCredentials {
    pub(super) credentials: Credentials,
    /// Who that is, once they were found good.
    identity: Option<Identity>,
}

/// Answers Authenticate.
pub(super) fn authenticate(edge: &EdgeState, session: &Session, package: &Package) {
    let correlation = package.correlation;
    let refuse = |refusal| session.send(|out| response::not_authenticated(out, correlation, refusal));
    let Some(credentials) = package.credentials.clone() else {
        return refuse(AuthenticationRefusal::NoCredentials);
    };
    let identity = edge.links.users.authenticate(credentials.view());
    if identity.is_some() {
        session.send(|out| response::authenticated(out, correlation));
    } else {
        refuse(AuthenticationRefusal::Unauthorized);
    }
    *session.credentials.borrow_mut() = Some(DefaultCredentials { credentials, identity });
}

/// Who asks; `None` when the credentials are not good, and then the client has been told.
pub(super) fn identify(edge: &EdgeState, session: &Session, package: &PackageView<'_>) -> Option<Identity> {
    // Clients cannot come here with a trusted package.
    if package.is_trusted() {
        return Some(Identity::System);
    }
    let identity = match package.credentials {
        Some(credentials) => edge.links.users.authenticate(credentials),
        None => default_identity(edge, session),
    };
    if identity.is_none() {
        let refusal = AuthenticationRefusal::NotAuthenticated;
        session.send(|out| response::not_authenticated(out, package.correlation, refusal));
    }
    identity
}

fn default_identity(edge: &EdgeState, session: &Session) -> Option<Identity> {
    let mut kept = session.credentials.borrow_mut();
    let Some(kept) = kept.as_mut() else {
        return Some(Identity::Anonymous);
    };
    if kept.identity.is_none() {
        kept.identity = edge.links.users.authenticate(kept.credentials.view());
    }
    kept.identity.clone()
}
