//! Secrets and configs that are copied into a container where they cannot be kept in memory, as an
//! archive for `PUT /containers/{id}/archive`.

use crate::Error;
use crate::translate::{Content, Injected};

/// What is in a file.
pub(crate) fn content(file: &Injected) -> Result<Vec<u8>, Error> {
    match &file.content {
        Content::Text(text) => Ok(text.clone().into_bytes()),
        Content::File(path) => std::fs::read(path)
            .map_err(|e| Error::Local(format!("cannot read {}: {e}", path.display()))),
    }
}

/// Packs files with owner and mode, to be unpacked at `/`.
pub(crate) fn archive(files: &[Injected]) -> Result<Vec<u8>, Error> {
    let mut builder = tar::Builder::new(Vec::new());
    let failed = |e: std::io::Error| Error::Local(format!("cannot pack secrets and configs: {e}"));
    for file in files {
        let content = content(file)?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(file.uid);
        header.set_gid(file.gid);
        let path = file.target.trim_start_matches('/');
        builder
            .append_data(&mut header, path, content.as_slice())
            .map_err(failed)?;
    }
    builder.into_inner().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_mode_and_content_are_kept() {
        let file = Injected {
            target: "/run/secrets/deep/s".to_owned(),
            content: Content::Text("hello".to_owned()),
            uid: 1000,
            gid: 100,
            mode: 0o440,
        };
        let packed = archive(&[file]).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let mut entries = archive.entries().unwrap();
        let entry = entries.next().unwrap().unwrap();
        let header = entry.header();
        assert_eq!(entry.path().unwrap().to_str(), Some("run/secrets/deep/s"));
        assert_eq!(header.uid().unwrap(), 1000);
        assert_eq!(header.gid().unwrap(), 100);
        assert_eq!(header.mode().unwrap(), 0o440);
        assert_eq!(std::io::read_to_string(entry).unwrap(), "hello");
        assert!(entries.next().is_none());
    }

    #[test]
    fn a_missing_file_is_named() {
        let file = Injected {
            target: "/c".to_owned(),
            content: Content::File("/nowhere/config".into()),
            uid: 0,
            gid: 0,
            mode: 0o444,
        };
        let error = archive(&[file]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/config"), "{error}");
    }
}
