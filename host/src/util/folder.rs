//! The folders that the host keeps files in, each opened once.
//!
//! What lies in one is reached by its name through the open folder, never by a path that is put
//! together: neither a `..` in a name, a symbolic link, nor a folder that is exchanged meanwhile
//! leads anywhere else, and what is no regular file (a pipe, a device) is not opened. New folders
//! and files are for the host's own user alone, whatever the umask.
//!
//! SQLite opens its files by path, since it makes others beside them: [`Folder::private_file`] sees
//! to it that the path is a regular file of this folder first.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt as _, Metadata, MetadataExt, OpenOptions, OpenOptionsExt as _,
};
use rustix::fs::{AtFlags, Mode, OFlags, chmodat, fchmod};

/// Mode of a folder of the host's own.
const PRIVATE_FOLDER: u32 = 0o700;

/// Mode of a file of the host's own.
const PRIVATE_FILE: u32 = 0o600;

/// The bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// The beginning of the names of files that are not whole yet.
pub(crate) const DRAFT: &str = ".draft-";

/// An open folder. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    dir: Arc<Dir>,
    /// Where it was when it was opened: for messages.
    path: PathBuf,
}

impl Folder {
    /// Opens a folder of the host's own. It is made where it is missing; one that others can look
    /// into is closed to them, and the log says so.
    pub(crate) fn private(path: &Path) -> io::Result<Self> {
        let folder = Self::made(path)?;
        folder.close_to_others()?;
        Ok(folder)
    }

    /// Opens a folder that an operator may share with others. It is made, for this user alone,
    /// where it is missing.
    pub(crate) fn made(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(path)?;
        Self::open(path)
    }

    /// Opens a folder that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        Ok(Self { dir: Arc::new(dir), path: path.to_owned() })
    }

    /// A folder in this one: [`private`](Self::private).
    pub(crate) fn subfolder(&self, name: &str) -> io::Result<Self> {
        self.make_folder(name)?;
        let folder = self.open_folder(name)?;
        folder.close_to_others()?;
        Ok(folder)
    }

    /// A folder in this one, or behind a link that stays in this one.
    pub(crate) fn open_folder(&self, name: &str) -> io::Result<Self> {
        Ok(Self { dir: Arc::new(self.dir.open_dir(name)?), path: self.path.join(name) })
    }

    /// Makes a folder in this one, and those above it, where they are missing: whether it was.
    pub(crate) fn make_folder(&self, name: &str) -> io::Result<bool> {
        if self.dir.is_dir(name) {
            return Ok(false);
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(PRIVATE_FOLDER);
        self.dir.create_dir_with(name, &builder)?;
        Ok(true)
    }

    /// Where the folder was when it was opened. To be shown, not to be opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether others than the host's user can look into the folder or change it.
    pub(crate) fn is_shared(&self) -> bool {
        self.dir.dir_metadata().is_ok_and(|about| about.mode() & OTHERS != 0)
    }

    fn close_to_others(&self) -> io::Result<()> {
        let mode = self.dir.dir_metadata()?.mode();
        if mode & OTHERS == 0 {
            return Ok(());
        }
        let path = self.path.display();
        // A volume that belongs to another user stays as it is.
        match chmodat(&*self.dir, ".", Mode::from_raw_mode(mode & 0o700), AtFlags::empty()) {
            Ok(()) => tracing::info!("{path}: closed to other users ({:o} before)", mode & 0o777),
            Err(error) => tracing::warn!(
                "{path} is open to other users ({:o}) and cannot be closed: {error}",
                mode & 0o777
            ),
        }
        Ok(())
    }

    /// Opens a regular file for reading. A symbolic link is none.
    pub(crate) fn read(&self, name: &str) -> io::Result<File> {
        self.regular(name, OpenOptions::new().read(true))
    }

    /// Opens a regular file for reading, or one behind a link that stays in this folder.
    pub(crate) fn read_linked(&self, name: impl AsRef<Path>) -> io::Result<File> {
        regular(self.dir.open_with(name, OpenOptions::new().read(true).custom_flags(PROMPT))?)
    }

    /// Opens a file for appending and for reading, or begins one. One that others can read or write
    /// is closed to them.
    pub(crate) fn append(&self, name: &str) -> io::Result<File> {
        let file = self.regular(name, OpenOptions::new().create(true).read(true).append(true))?;
        close_file(&file)?;
        Ok(file)
    }

    /// Makes a file, or empties the one of this name.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        self.regular(name, OpenOptions::new().create(true).write(true).truncate(true))
    }

    /// Begins a file that something else opens by path, as [`append`](Self::append) does.
    pub(crate) fn private_file(&self, name: &str) -> io::Result<()> {
        self.append(name).map(drop)
    }

    /// A file that gets its name when it is whole.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let name = format!("{DRAFT}{:016x}", rand::random::<u64>());
        let file =
            self.regular(&name, OpenOptions::new().create_new(true).read(true).write(true))?;
        Ok(Draft { folder: self.clone(), name, file })
    }

    fn regular(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        let no_link = OFlags::NOFOLLOW.bits().cast_signed();
        let options = options.mode(PRIVATE_FILE).custom_flags(PROMPT | no_link);
        regular(self.dir.open_with(name, options)?)
    }

    /// What is known of a file without opening it. A symbolic link counts as itself.
    pub(crate) fn about(&self, name: &str) -> io::Result<Metadata> {
        self.dir.symlink_metadata(name)
    }

    /// The size of a regular file, in bytes. `None` if there is none of this name.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.about(name).ok().filter(Metadata::is_file).map(|about| about.len())
    }

    /// Whether something of this name is there, behind links or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.about(name).is_ok()
    }

    /// The names of all that lies in the folder, but those that are not UTF-8: the host makes none.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        self.names_in(".")
    }

    /// The names in a folder of this one.
    pub(crate) fn names_in(&self, name: &str) -> io::Result<Vec<String>> {
        let entries = self.dir.read_dir(name)?;
        entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    /// Renames a file of this folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(from, &self.dir, to)
    }

    /// Removes a file. One that is not there is no error.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match self.dir.remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts a file of this folder into another one of the same disk as well, without a copy of its
    /// bytes; where the file system knows no second names, it is copied. One that is there is left
    /// as it is.
    pub(crate) fn link(&self, name: &str, to: &Self) -> io::Result<()> {
        match self.dir.hard_link(name, &to.dir, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => self.copy(name, to),
            Ok(()) => Ok(()),
        }
    }

    /// Copies a file into another folder, unless that has one of this name.
    pub(crate) fn copy(&self, name: &str, to: &Self) -> io::Result<()> {
        if to.has(name) { Ok(()) } else { self.dir.copy(name, &to.dir, name).map(drop) }
    }

    /// Removes a folder of this one with all that is in it. One that is not there is no error.
    pub(crate) fn remove_folder(&self, name: &str) -> io::Result<()> {
        match self.dir.remove_dir_all(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the drafts of a host that was killed.
    pub(crate) fn remove_drafts(&self) -> io::Result<()> {
        let names = self.names()?;
        names.iter().filter(|name| name.starts_with(DRAFT)).try_for_each(|name| self.remove(name))
    }

    /// A handle of the folder itself, for locks and for [`File::sync_all`].
    pub(crate) fn handle(&self, name: &str) -> io::Result<File> {
        Ok(self.dir.open(name)?.into_std())
    }
}

/// Opening waits for nothing: neither for the writer of a pipe nor for a line to a device.
const PROMPT: i32 = (OFlags::NONBLOCK.bits() | OFlags::NOCTTY.bits()).cast_signed();

/// Opens a regular file that an operator named, by its path. Links are followed; what could block is
/// no such file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let options = OpenOptions::new().read(true).custom_flags(PROMPT).clone();
    regular(cap_std::fs::File::open_ambient_with(path, &options, ambient_authority())?)
}

fn regular(file: cap_std::fs::File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file.into_std()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Takes others' rights to a file, where it is the host's own.
fn close_file(file: &File) -> io::Result<()> {
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata()?);
    if mode & OTHERS != 0 {
        let closed = fchmod(file, Mode::from_raw_mode(mode & 0o700));
        closed
            .or_else(|error| if error == rustix::io::Errno::PERM { Ok(()) } else { Err(error) })?;
    }
    Ok(())
}

/// A file that gets its name when it is whole, and is deleted when it is dropped before.
#[derive(Debug)]
pub(crate) struct Draft {
    folder: Folder,
    name: String,
    /// Open for reading and writing.
    pub(crate) file: File,
}

impl Draft {
    /// Another handle, for reading alone.
    pub(crate) fn reader(&self) -> io::Result<File> {
        self.folder.read(&self.name)
    }

    /// Gives it its name, in place of what has that name.
    pub(crate) fn persist(mut self, name: &str) -> io::Result<()> {
        self.folder.rename(&self.name, name)?;
        self.name.clear();
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // It stays where even that fails, until the next start.
            let _ = self.folder.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_files_and_folders_are_for_one_user_and_old_folders_are_closed() {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().join("new/data");
        let folder = Folder::private(&path).unwrap();
        folder.subfolder("a").unwrap();
        folder.make_folder("b/c").unwrap();
        folder.create("file").unwrap();
        folder.append("log").unwrap();
        let mut draft = folder.draft().unwrap();
        draft.file.write_all(b"whole").unwrap();
        draft.persist("drafted").unwrap();
        for name in ["..", ".", "a", "b", "b/c"] {
            assert_eq!(mode(&path.join(name)), 0o700, "{name}");
        }
        for name in ["file", "log", "drafted"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        for name in [".", "a"] {
            std::fs::set_permissions(path.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        std::fs::set_permissions(path.join("file"), PermissionsExt::from_mode(0o644)).unwrap();
        let folder = Folder::private(&path).unwrap();
        folder.subfolder("a").unwrap();
        folder.private_file("file").unwrap();
        assert_eq!([".", "a", "file"].map(|name| mode(&path.join(name))), [0o700, 0o700, 0o600]);
    }

    #[test]
    fn no_name_leads_out_of_the_folder_and_nothing_but_a_file_is_opened() {
        let site = tempfile::tempdir().unwrap();
        std::fs::write(site.path().join("secret"), "secret").unwrap();
        let path = site.path().join("data");
        let folder = Folder::private(&path).unwrap();
        folder.create("there").unwrap();
        folder.make_folder("folder").unwrap();
        let secret = site.path().join("secret");
        for (target, link) in [
            (Path::new("there"), "inside"),
            (Path::new("../secret"), "outside"),
            (&secret, "absolute"),
            (Path::new("/dev/null"), "device"),
            (Path::new("/proc/self/fd/0"), "magic"),
            (Path::new(".."), "up"),
        ] {
            symlink(target, path.join(link)).unwrap();
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("pipe"), Mode::RWXU).unwrap();
        let absolute = secret.to_str().unwrap();
        let links = ["outside", "absolute", "device", "magic", "up"];
        let others = ["../secret", "up/secret", "folder/../../secret", absolute, "pipe", "folder"];
        for name in links.into_iter().chain(others) {
            assert!(folder.read(name).is_err(), "{name}");
            assert!(folder.read_linked(name).is_err(), "{name}");
            assert!(folder.create(name).is_err(), "{name}");
            assert!(folder.append(name).is_err(), "{name}");
            assert!(folder.private_file(name).is_err(), "{name}");
            assert!(folder.size(name).is_none(), "{name}");
        }
        assert!(folder.read("inside").is_err() && folder.read_linked("inside").is_ok());
        assert!(folder.subfolder("up").is_err() && folder.subfolder("../x").is_err());
        assert!(folder.names_in("up").is_err());
        assert!(folder.rename("there", "../there").is_err() && folder.remove("../secret").is_err());
        assert_eq!(std::fs::read(secret).unwrap(), b"secret");
    }

    #[test]
    fn a_folder_that_is_exchanged_is_the_same_one_still() {
        let site = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (site.path().join("data"), site.path().join("elsewhere"));
        std::fs::create_dir(&elsewhere).unwrap();
        let folder = Folder::private(&path).unwrap();
        std::fs::rename(&path, site.path().join("moved")).unwrap();
        symlink(&elsewhere, &path).unwrap();
        folder.create("file").unwrap();
        assert!(site.path().join("moved/file").exists());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn a_draft_is_gone_unless_it_was_made_whole() {
        let site = tempfile::tempdir().unwrap();
        let folder = Folder::private(site.path()).unwrap();
        let draft = folder.draft().unwrap();
        assert_eq!(folder.names().unwrap().len(), 1);
        drop(draft);
        assert!(folder.names().unwrap().is_empty());
        std::mem::forget(folder.draft().unwrap());
        folder.create("other").unwrap();
        folder.remove_drafts().unwrap();
        assert_eq!(folder.names().unwrap(), ["other"]);
    }
}
