//! Tar archives (ustar), as far as images need them.

const BLOCK: usize = 512;

/// A tar archive in the making. All files belong to root and are from 1970: the same content
/// always gives the same archive.
#[derive(Clone, Debug, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        self.entry(&format!("{path}/"), mode, b'5', "", &[])
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(path, mode, b'0', "", content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(path, 0o777, b'2', target, &[])
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        kind: u8,
        target: &str,
        content: &[u8],
    ) -> &mut Self {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        // The format has a hundred bytes for a name; what is put into images here is shorter.
        put(0, &path.as_bytes()[..path.len().min(100)]);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, &target.as_bytes()[..target.len().min(100)]);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn tar_reads_what_is_written() {
        let mut archive = Archive::default();
        archive
            .folder("bin", 0o755)
            .file("bin/tool", 0o755, &[b'x'; 700])
            .link("bin/alias", "tool");
        let mut tar = Command::new("tar")
            .args(["-tvf", "-"])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar runs");
        let mut stdin = tar.stdin.take().expect("piped");
        stdin.write_all(&archive.finish()).expect("tar reads");
        drop(stdin);
        let output = tar.wait_with_output().expect("tar ends");
        let listing = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        assert!(listing.contains("drwxr-xr-x"), "{listing}");
        assert!(listing.contains("700 1970-01-01"), "{listing}");
        assert!(listing.contains("bin/alias -> tool"), "{listing}");
    }
}
