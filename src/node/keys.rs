//! What the two planes are closed with, as one value: loaded before anything is opened.

use std::sync::Arc;

use crate::config::Config;
use crate::security::{ExternalTrust, Plane};

use super::NodeError;

/// Certificates and secrets of this node. Cheap to clone; clones see what was read again.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// How the internal plane is closed.
    pub(super) plane: Plane,
    /// What clients are shown at the ports with TLS; `None` when there are none.
    pub(super) external: Option<Arc<ExternalTrust>>,
}

impl Keys {
    /// Reads the files that the options name, and says how the internal plane is closed.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(super) fn load(config: &Config) -> Result<Keys, NodeError> {
        let plane = Plane::load(&config.security.internal)?;
        let external = config.security.external.clone();
        let external = external.map(|(certificate, key)| ExternalTrust::load(certificate, key)).transpose()?;
        let keys = Keys { plane, external: external.map(Arc::new) };
        tracing::info!("the internal plane is {}", keys.plane.words());
        keys.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(keys)
    }

    /// What the operator should know of the files.
    fn warnings(&self) -> Vec<String> {
        let external = self.external.as_ref().map(|trust| trust.warnings());
        self.plane.warnings().into_iter().chain(external.unwrap_or_default()).collect()
    }
}
