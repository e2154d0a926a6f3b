//! etcd, as this crate uses it.
use crate::site::{SiteError, SiteOptions};

#[derive(Debug, Clone)]
pub(crate) struct Etcd;

impl Etcd {
    pub(crate) fn new(_options: &SiteOptions) -> Result<Self, SiteError> {
        Ok(Self)
    }
}
