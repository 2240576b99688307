//! The internal listener (SEC-12): a Unix socket that this user alone can open, or a port on loopback. Tool servers call back
//! through it, and `x-mcp-proxy-auth` is read nowhere else.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use systemprompt_config::profile::listen::InternalAddress;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Marks a request that came in by the internal listener.
#[derive(Clone, Copy, Debug)]
pub struct Internal;

/// The bound listener.
#[derive(Debug)]
pub enum InternalListener {
    Loopback(TcpListener),
    Unix(UnixListener),
}

impl InternalListener {
    /// Binds `address`; a relative path counts from `data_dir`. What a dead process left of a socket is replaced.
    ///
    /// # Errors
    /// When another process listens there, or the place cannot be bound.
    pub async fn bind(address: &InternalAddress, data_dir: &Path) -> io::Result<Self> {
        match address {
            InternalAddress::Loopback(address) => TcpListener::bind(address).await.map(Self::Loopback),
            InternalAddress::Unix(path) => bind_socket(&data_dir.join(path)).await.map(Self::Unix),
        }
    }
}

/// Binds in a folder that nobody else can enter, sets the mode there, and moves the socket to its place: at no moment could
/// another user open it.
async fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            ErrorKind::AddrInUse,
            format!("another process listens on {}", path.display()),
        ));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
        let what = format!("{} is there and is no socket", path.display());
        return Err(io::Error::new(ErrorKind::AlreadyExists, what));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let private = folder.join(format!(".{}", systemprompt_models::ids::uuid_v7().simple()));
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let made = bind_private(&private.join("s"), path);
    let _ = std::fs::remove_file(private.join("s"));
    let _ = std::fs::remove_dir(&private);
    made
}

fn bind_private(draft: &Path, path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(draft)?;
    std::fs::set_permissions(draft, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(draft, path)?;
    Ok(listener)
}

fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn a_socket_is_of_mode_0600_replaces_a_dead_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let address: InternalAddress = "unix:run/internal.sock".parse().unwrap();
        let path = folder.path().join("run/internal.sock");
        let first = InternalListener::bind(&address, folder.path()).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("run")).unwrap().count(), 1, "no draft is left");
        let taken = InternalListener::bind(&address, folder.path()).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);

        drop(first);
        assert!(path.exists(), "a dead process leaves its socket");
        let second = InternalListener::bind(&address, folder.path()).await.unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(second);

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody's file").unwrap();
        let refused = InternalListener::bind(&address, folder.path()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's file");
    }
}
