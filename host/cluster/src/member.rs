//! This host as a member of its site: which cameras it owns, and until when it may say so.
//!
//! # How it works
//!
//! One task, the *keeper*, has the host's state. It holds a watched copy of the site's keys in etcd,
//! joins, claims what the plan gives this host, says what is to be handed over, and, where this host is
//! the planner, plans. Another renews the lease and ends the host's voice at the moment when the lease
//! may have ended ([`crate::lease`]), whatever the keeper is busy with. A third reads the site's keys
//! and watches them. A watch that breaks goes on where it was: all hosts that read everything at once
//! would keep a busy etcd busy.
//!
//! # Who owns a camera
//!
//! `own/CAM` says which host claimed it with which lease, and its modification revision is the
//! [`Epoch`]. A claim is one transaction: the claiming host's key lives with its lease, `own/CAM` is
//! as read, and the former owner either released it or its host key is not there with its lease. etcd
//! deletes a host's key together with the lease, so this proves in the transaction itself that the
//! former owner is dead. The plan only says who tries.
//!
//! # A planned move
//!
//! The host that is to have the camera sees it in [`Member::coming`], makes all ready, and says
//! [`Member::prepared`]. Then, or after [`PREPARATION`], the owner sees it in [`Member::leaving`],
//! hands over and says [`Member::release`]. Now the new one claims it.
//!
//! # A camera that subscribers had made
//!
//! [`Member::make_camera`] adds it, and says in the same transaction that this host has subscribers of
//! it: `made/CAM/HOST`, which ends with the host's lease. Each host says so of itself
//! ([`Member::listen`]), and takes it back ([`Member::unlisten`]), unless it has said so again. Who
//! removes the camera does it in a transaction that finds no such key ([`Member::remove_made`]), and
//! who says that it has subscribers does so in one that finds the camera: whichever is first, the other
//! one is told.

mod claims;
mod keeper;
mod made;
mod planning;
mod records;
mod renewal;
mod site;
mod transactions;
mod voice;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::documents::Documents;
use crate::etcd::keys::{bad_camera, bad_document};
use crate::etcd::{Etcd, Fault};
use crate::site::{Epoch, SiteError, SiteOptions, is_name};

pub use records::{
    CameraRecord, CoordError, HostRecord, HostView, LeaseId, Listener, Making, MemberStatus, Owner,
    Ownership, SiteRefusal, SiteView,
};

use voice::Voice;

/// How long the owner of a camera that is to move waits for the new host to prepare: as long as it
/// takes to compile a component and start a worker on a busy machine.
pub const PREPARATION: Duration = Duration::from_secs(10);

/// Requests of the host that the keeper has not taken yet: more than the cameras of a host, all of
/// which may leave at once.
const COMMANDS: usize = 1024;

/// This host as a member of its site. Clones are the same member; when the last is dropped, the host
/// is gone for the site as if it had died.
#[derive(Debug, Clone)]
pub struct Member {
    shared: Arc<Shared>,
    etcd: Etcd,
    commands: mpsc::Sender<Command>,
}

/// What the keeper's task tells those who hold the member.
#[derive(Debug)]
struct Shared {
    options: SiteOptions,
    status: watch::Sender<MemberStatus>,
    voice: Voice,
    coming: watch::Sender<Arc<BTreeMap<String, Arc<CameraRecord>>>>,
    leaving: watch::Sender<Arc<BTreeMap<String, Epoch>>>,
    site: watch::Sender<Arc<SiteView>>,
}

/// What those who hold the member ask of the keeper.
#[derive(Debug)]
enum Command {
    Prepared { camera: String },
    Release { camera: String, epoch: Epoch, done: oneshot::Sender<Result<(), CoordError>> },
    Describe { record: HostRecord },
    Leave { within: Duration, done: oneshot::Sender<()> },
}

impl Member {
    /// Returns at once, and joins in the background, for ever: a site whose engines are away is
    /// joined when they are back. Needs a tokio runtime.
    pub fn start(options: SiteOptions, record: HostRecord) -> Result<Self, SiteError> {
        options.check()?;
        let etcd = Etcd::new(&options)?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared {
            options,
            status: watch::Sender::new(MemberStatus::Joining("etcd has not answered yet".into())),
            voice: Voice::new(),
            coming: watch::Sender::default(),
            leaving: watch::Sender::default(),
            site: watch::Sender::default(),
        });
        tokio::spawn(keeper::keep(Arc::clone(&shared), etcd.clone(), record, inbox));
        Ok(Self { shared, etcd, commands })
    }

    /// The options that it was started with.
    pub fn options(&self) -> &SiteOptions {
        &self.shared.options
    }

    pub fn status(&self) -> watch::Receiver<MemberStatus> {
        self.shared.status.subscribe()
    }

    /// The cameras that this host owns. Becomes empty by itself at the moment when the lease may have
    /// ended.
    pub fn owned(&self) -> watch::Receiver<Arc<BTreeMap<String, Ownership>>> {
        self.shared.voice.subscribe()
    }

    /// Whether this host may speak for `camera` with `epoch` at this moment. Cheap, for any thread, and
    /// right even where no task has had the time to see that the lease is over.
    pub fn may_speak(&self, camera: &str, epoch: Epoch) -> bool {
        self.shared.voice.may_speak(camera, epoch)
    }

    /// The cameras that this host is to have, and that another host, which lives, still has: prepare
    /// them, then say [`Member::prepared`].
    pub fn coming(&self) -> watch::Receiver<Arc<BTreeMap<String, Arc<CameraRecord>>>> {
        self.shared.coming.subscribe()
    }

    /// A camera of [`Member::coming`] can be taken over at once.
    pub fn prepared(&self, camera: &str) {
        let command = Command::Prepared { camera: camera.to_owned() };
        if self.commands.try_send(command).is_err() {
            tracing::debug!(
                camera,
                "not told that it is prepared: its owner waits no longer for it"
            );
        }
    }

    /// The cameras of this host that it is to give up: planned for another host which is prepared or
    /// had time enough, planned for none, or removed. Hand over, then say [`Member::release`].
    pub fn leaving(&self) -> watch::Receiver<Arc<BTreeMap<String, Epoch>>> {
        self.shared.leaving.subscribe()
    }

    /// Gives a camera up: this host speaks no more for it from this call on, whatever it returns, and
    /// another may claim it when it returns.
    pub async fn release(&self, camera: &str, epoch: Epoch) -> Result<(), CoordError> {
        self.shared.voice.drop(camera, epoch);
        let (done, answer) = oneshot::channel();
        let command = Command::Release { camera: camera.to_owned(), epoch, done };
        self.commands.send(command).await.map_err(|_| CoordError::NotMember)?;
        answer.await.map_err(|_| CoordError::NotMember)?
    }

    /// A fence of the data refused `epoch`: somebody else has the camera, or will. Like
    /// [`Member::release`], but does not wait for etcd.
    pub async fn relinquish(&self, camera: &str, epoch: Epoch) {
        self.shared.voice.drop(camera, epoch);
        let (done, _) = oneshot::channel();
        let command = Command::Release { camera: camera.to_owned(), epoch, done };
        // An ended keeper has nothing that could be given up.
        let _ = self.commands.send(command).await;
    }

    /// What this host says of itself has changed.
    pub async fn describe(&self, record: HostRecord) {
        // An ended keeper describes nobody.
        let _ = self.commands.send(Command::Describe { record }).await;
    }

    /// Leaves the site: is drained (the host still has to hand over what is in [`Member::leaving`]),
    /// then gives the lease back. What nobody else can take, and what is left after `within`, is
    /// released as it is.
    pub async fn leave(&self, within: Duration) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Leave { within, done }).await.is_ok() {
            // It ends without an answer only together with the keeper.
            let _ = answer.await;
        }
    }

    /// A watched copy of what etcd says of the site, for routing and listing.
    pub fn site(&self) -> watch::Receiver<Arc<SiteView>> {
        self.shared.site.subscribe()
    }

    /// What etcd says of the site at this moment.
    pub async fn read_site(&self) -> Result<SiteView, CoordError> {
        let (entries, revision) = site::read(&self.etcd).await.map_err(|fault| fault.about(""))?;
        let mut site = site::Site::default();
        site.load(entries, revision);
        Ok(site.view)
    }

    /// Adds a camera to the site, or says anew what is wanted of it.
    pub async fn put_camera(&self, id: &str, record: &CameraRecord) -> Result<(), CoordError> {
        check_camera(id)?;
        transactions::put_camera(&self.etcd, id, record).await.map_err(about(id))
    }

    /// Removes a camera from the site. False where there was none.
    pub async fn remove_camera(&self, id: &str) -> Result<bool, CoordError> {
        check_camera(id)?;
        transactions::remove_camera(&self.etcd, id).await.map_err(about(id))
    }

    /// Wishes that a host be emptied and get nothing, or no more. The wish outlasts the host's lives.
    pub async fn set_draining(&self, host: &str, draining: bool) -> Result<(), CoordError> {
        check_host(host)?;
        transactions::set_draining(&self.etcd, host, draining).await.map_err(about(host))
    }

    /// Wishes a camera to a host, or with `None` to whichever the plan says. The wish is fulfilled
    /// while that host lives, fits, and has room. False where there is no such camera.
    pub async fn move_camera(&self, camera: &str, host: Option<&str>) -> Result<bool, CoordError> {
        check_camera(camera)?;
        host.map_or(Ok(()), check_host)?;
        transactions::move_camera(&self.etcd, camera, host).await.map_err(about(camera))
    }

    /// Writes a document in the name of a camera's owner: refused where the camera is not this host's
    /// with `epoch` at the moment of writing.
    pub async fn put_owned(
        &self,
        camera: &str,
        epoch: Epoch,
        key: &str,
        value: &[u8],
    ) -> Result<(), CoordError> {
        if let Some(why) = bad_document(key) {
            return Err(CoordError::Key(key.to_owned(), why));
        }
        match self.me()?.put_owned(camera, epoch, key, value).await.map_err(about(key))? {
            true => Ok(()),
            false => Err(CoordError::NotOwner { camera: camera.to_owned(), epoch }),
        }
    }

    /// This host in the life that it has now.
    fn me(&self) -> Result<transactions::Me, CoordError> {
        let lease = self.shared.voice.lease().ok_or(CoordError::NotMember)?;
        let host = self.shared.options.host.clone();
        Ok(transactions::Me { etcd: self.etcd.clone(), host, lease })
    }

    /// The site's documents.
    pub fn documents(&self) -> Documents {
        Documents::new(self.etcd.clone())
    }
}

impl Shared {
    fn tell(&self, status: MemberStatus) {
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
    }
}

fn about(key: &str) -> impl FnOnce(Fault) -> CoordError {
    move |fault| fault.about(key)
}

fn check_camera(id: &str) -> Result<(), CoordError> {
    bad_camera(id).map_or(Ok(()), |why| Err(CoordError::Key(id.to_owned(), why)))
}

fn check_host(id: &str) -> Result<(), CoordError> {
    let why = "no name of a host: 1 to 32 of a-z, 0-9 and -";
    if is_name(id) { Ok(()) } else { Err(CoordError::Key(id.to_owned(), why)) }
}
