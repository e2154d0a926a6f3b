//! Keeps a lease alive, and ends the host's voice when it may be over.

use std::sync::Arc;

use super::Shared;
use super::transactions::{Granted, Me};
use super::voice::Life;
use crate::etcd::Fault;
use crate::lease::{BootTime, Lapse, Lease, Next};

/// Renews until the lease has lapsed; with the reason. A task of its own, so that nothing that the
/// keeper does delays it.
pub(super) async fn renew(
    shared: Arc<Shared>,
    me: Me,
    life: Arc<Life>,
    granted: Granted,
) -> String {
    let mut lease = Lease::granted(granted.sent);
    let mut last = None;
    loop {
        let now = BootTime::now();
        match lease.next(now) {
            Next::Wait(until) => tokio::time::sleep(until.since(now)).await,
            Next::Renew => {
                let left = lease.until().since(now);
                match me.etcd.renew(me.lease.0, left).await {
                    Ok(()) => {
                        last = None;
                        lease.answered(now, BootTime::now());
                        life.extend(lease.until());
                    }
                    Err(Fault::LeaseGone) => lease.gone(),
                    Err(fault) => {
                        last = Some(fault.reason());
                        lease.unanswered(now, BootTime::now());
                    }
                }
            }
            Next::Lapsed(lapse) => {
                shared.voice.end(&life);
                return match (lapse, last) {
                    (Lapse::Gone, _) => "etcd does not have this host's lease any more".into(),
                    (Lapse::Unanswered, Some(reason)) => {
                        format!("the lease could not be renewed: {reason}")
                    }
                    (Lapse::Unanswered, None) => {
                        "this host did not run for longer than its lease".into()
                    }
                };
            }
        }
    }
}
