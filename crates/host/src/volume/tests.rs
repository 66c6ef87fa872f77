use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("wharfie-volume-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn moved(from: &Path, to: &Path) -> (std::io::Result<String>, std::io::Result<String>) {
    let (mut one, mut other) = tokio::io::duplex(10_000);
    let from = from.to_owned();
    let sending = async move { send(from, &mut one, |_| {}).await };
    tokio::join!(sending, receive(to, &mut other))
}

#[tokio::test]
async fn all_of_a_volume_arrives() {
    let (from, to) = (Scratch::new("from"), Scratch::new("to"));
    let at = |name: &str| from.0.join(name);
    fs::create_dir_all(at("d/empty")).unwrap();
    fs::write(at("d/file"), "text").unwrap();
    fs::hard_link(at("d/file"), at("same")).unwrap();
    symlink("d/file", at("link")).unwrap();
    symlink("nowhere/at/all", at("dangling")).unwrap();
    fs::write(at("big"), vec![7_u8; 3_000_000]).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    fs::write(at(&"long".repeat(60)), "long").unwrap();
    let tool = fs::Permissions::from_mode(0o4750);
    fs::set_permissions(at("same"), tool).unwrap();
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o1777)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let pipe = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), pipe, mode, 0).unwrap();
    let marked = rustix::fs::lsetxattr(at("big"), "user.mark", b"a\0b", flags).is_ok();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();

    let (sent, received) = moved(&from.0, &to.0).await;
    assert_eq!(sent.unwrap(), received.unwrap());
    let there = |name: &str| to.0.join(name);
    assert_eq!(fs::read_to_string(there("link")).unwrap(), "text");
    assert_eq!(
        fs::read_link(there("dangling")).unwrap(),
        Path::new("nowhere/at/all")
    );
    let meta = |path: PathBuf| fs::symlink_metadata(path).unwrap();
    for name in [
        "", "d", "d/empty", "d/file", "big", "sparse", "link", "pipe",
    ] {
        let (a, b) = (meta(at(name)), meta(there(name)));
        let all = |m: &fs::Metadata| (m.mode(), m.uid(), m.mtime(), m.mtime_nsec());
        assert_eq!(all(&a), all(&b), "{name}");
    }
    assert_eq!(meta(there("d/file")).ino(), meta(there("same")).ino());
    assert_eq!(meta(there("same")).mode() & 0o7777, 0o4750);
    assert_eq!(meta(there("sparse")).len(), 50_000_000);
    assert!(meta(there("sparse")).blocks() < 1_000);
    assert!(!there("socket").exists());
    if marked {
        let more = pack::attributes(&there("big")).unwrap();
        assert!(more.contains(&("user.mark".to_owned(), b"a\0b".to_vec())));
    }
}

#[tokio::test]
async fn what_is_cut_off_is_an_error() {
    let (from, to) = (Scratch::new("cut-from"), Scratch::new("cut-to"));
    fs::write(from.0.join("a"), vec![1_u8; 1_000_000]).unwrap();
    let (mut one, mut other) = tokio::io::duplex(10_000);
    let root = from.0.clone();
    let sending = async move {
        let sent = send(root, &mut one, |_| {});
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), sent).await;
    };
    let slowly = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        receive(&to.0, &mut other).await
    };
    let ((), received) = tokio::join!(sending, slowly);
    assert!(received.is_err(), "{received:?}");
    // Nobody reads: the sender is told.
    let (sent, _) = {
        let (mut one, other) = tokio::io::duplex(10_000);
        drop(other);
        (send(from.0.clone(), &mut one, |_| {}).await, ())
    };
    assert!(sent.is_err());
    let gone = Path::new("/no/such/volume");
    assert!(moved(gone, &to.0).await.0.is_err());
}

#[test]
fn an_archive_writes_nothing_outside() {
    let (to, outside) = (Scratch::new("inside"), Scratch::new("outside"));
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    archive
        .append_link(&mut header, "v/way", &outside.0)
        .unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    archive
        .append_data(&mut header, "v/way/out", std::io::empty())
        .unwrap();
    let bytes = archive.into_inner().unwrap();
    let error = unpack::unpack(&to.0, bytes.as_slice()).unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
    assert!(!outside.0.join("out").exists());
}

#[test]
fn volumes_that_their_driver_mounts_are_left_alone() {
    let of = |driver: &str, options: &[(&str, &str)]| LocalVolume {
        driver: driver.to_owned(),
        options: options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..LocalVolume::default()
    };
    assert_eq!(of("local", &[]).foreign(), None);
    assert_eq!(of("local", &[("o", "size=1g")]).foreign(), None);
    let bound = [("type", "none"), ("o", "bind"), ("device", "/srv")];
    assert!(of("local", &bound).foreign().is_some());
    assert!(of("local", &[("type", "tmpfs")]).foreign().is_some());
    assert!(of("nfs", &[]).foreign().is_some());
    assert!(check_name("shop_data.1-x").is_ok());
    for bad in ["", "../x", "a/b", "a?x", ".x"] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
