//! The files below a directory, as answers to requests.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use super::date;

/// Files up to this size are kept in memory.
const CACHED_FILE: u64 = 64 * 1024;
/// Memory that they may take together; when it is full they are all let go.
const CACHE: usize = 32 * 1024 * 1024;
/// How long, in nanoseconds, a file in memory is trusted before the disk is asked again.
const TRUSTED: u64 = 1_000_000_000;

/// A file that can be served.
#[derive(Clone)]
pub struct Found {
    pub length: u64,
    /// When it was changed, as HTTP writes it.
    pub modified: Rc<str>,
    pub kind: &'static str,
    pub content: Content,
}

/// Where a file's bytes are.
#[derive(Clone)]
pub enum Content {
    Memory(Rc<[u8]>),
    Disk(Rc<File>),
}

/// What a path leads to.
pub enum Lookup {
    Found(Found),
    /// A directory asked for without its slash: where it is.
    Moved(String),
    Missing,
    Forbidden,
}

struct Cached {
    found: Found,
    changed: SystemTime,
    path: PathBuf,
    checked: u64,
}

/// A directory tree that is served.
pub struct Site {
    root: PathBuf,
    cache: HashMap<String, Cached>,
    cached_bytes: usize,
    date: (u64, Rc<str>),
}

impl Site {
    /// The tree below `root`.
    ///
    /// # Errors
    /// It is no directory, or cannot be read.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        root.read_dir()?;
        Ok(Self { root, cache: HashMap::new(), cached_bytes: 0, date: (0, Rc::from(date::text(0))) })
    }

    /// The Date field's value. `now` is in nanoseconds of any clock.
    pub fn date(&mut self, now: u64) -> Rc<str> {
        const REFRESH: u64 = 250_000_000;
        if now.saturating_sub(self.date.0) > REFRESH || self.date.0 == 0 {
            self.date = (now.max(1), Rc::from(date::text(date::seconds(SystemTime::now()))));
        }
        self.date.1.clone()
    }

    /// What the percent-encoded `path` of a request leads to.
    pub fn find(&mut self, path: &str, now: u64) -> Lookup {
        if let Some(cached) = self.cache.get_mut(path) {
            let same = |m: Metadata| m.len() == cached.found.length && m.modified().ok() == Some(cached.changed);
            if now.saturating_sub(cached.checked) < TRUSTED {
                return Lookup::Found(cached.found.clone());
            }
            if cached.path.metadata().is_ok_and(same) {
                cached.checked = now;
                return Lookup::Found(cached.found.clone());
            }
            self.cached_bytes -= cached.found.length as usize;
            self.cache.remove(path);
        }
        self.look_on_disk(path, now).unwrap_or_else(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => Lookup::Forbidden,
            _ => Lookup::Missing,
        })
    }

    fn look_on_disk(&mut self, path: &str, now: u64) -> io::Result<Lookup> {
        let Some(relative) = decode(path) else { return Ok(Lookup::Missing) };
        let relative = Path::new(relative.trim_start_matches('/'));
        // Nothing above the root is named, nor reached over a symbolic link.
        if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Ok(Lookup::Forbidden);
        }
        let mut full = self.root.join(relative).canonicalize()?;
        if !full.starts_with(&self.root) {
            return Ok(Lookup::Forbidden);
        }
        if full.is_dir() {
            if !path.ends_with('/') {
                return Ok(Lookup::Moved(format!("{path}/")));
            }
            full = full.join("index.html").canonicalize()?;
            if !full.starts_with(&self.root) {
                return Ok(Lookup::Forbidden);
            }
        } else if path.ends_with('/') {
            return Ok(Lookup::Missing);
        }
        let file = File::open(&full)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Ok(Lookup::Forbidden);
        }
        let changed = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let mut found = Found {
            length: about.len(),
            modified: Rc::from(date::text(date::seconds(changed))),
            kind: content_type(&full),
            content: Content::Disk(Rc::new(file)),
        };
        if found.length <= CACHED_FILE {
            self.keep(path, &mut found, changed, full, now)?;
        }
        Ok(Lookup::Found(found))
    }

    /// Take the file into memory.
    fn keep(&mut self, path: &str, found: &mut Found, changed: SystemTime, full: PathBuf, now: u64) -> io::Result<()> {
        let Content::Disk(file) = &found.content else { return Ok(()) };
        let mut bytes = vec![0; found.length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        found.content = Content::Memory(Rc::from(bytes));
        if self.cached_bytes + found.length as usize > CACHE {
            self.cache.clear();
            self.cached_bytes = 0;
        }
        self.cached_bytes += found.length as usize;
        self.cache.insert(path.to_string(), Cached { found: found.clone(), changed, path: full, checked: now });
        Ok(())
    }
}

/// Undo percent-encoding; none where it is broken, or hides a slash or a NUL.
fn decode(path: &str) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                let decoded = (digit()? * 16 + digit()?) as u8;
                if matches!(decoded, 0 | b'/') {
                    return None;
                }
                decoded
            }
            0 => return None,
            other => other,
        };
        out.push(byte);
    }
    String::from_utf8(out).ok()
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "csv" => "text/csv; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "gz" | "tgz" => "application/gzip",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A tree with a file above it, removed when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let top = std::env::temp_dir().join(format!("ringroad-site-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&top);
            fs::create_dir_all(top.join("root/sub dir")).unwrap();
            fs::write(top.join("secret"), "secret").unwrap();
            fs::write(top.join("root/index.html"), "hello").unwrap();
            fs::write(top.join("root/sub dir/a.txt"), "text").unwrap();
            fs::write(top.join("root/big.bin"), vec![7; CACHED_FILE as usize + 1]).unwrap();
            std::os::unix::fs::symlink("../secret", top.join("root/link")).unwrap();
            std::os::unix::fs::symlink("index.html", top.join("root/inner")).unwrap();
            Self(top)
        }

        fn site(&self) -> Site {
            Site::new(&self.0.join("root")).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn status(site: &mut Site, path: &str) -> &'static str {
        match site.find(path, 1) {
            Lookup::Found(_) => "found",
            Lookup::Moved(_) => "moved",
            Lookup::Missing => "missing",
            Lookup::Forbidden => "forbidden",
        }
    }

    #[test]
    fn paths_lead_where_they_should_and_never_out() {
        let tree = Tree::new("paths");
        let mut site = tree.site();
        for (path, expected) in [
            ("/", "found"),
            ("/index.html", "found"),
            ("/inner", "found"),
            ("/sub%20dir/a.txt", "found"),
            ("/sub%20dir", "moved"),
            ("/sub%20dir/", "missing"),
            ("/index.html/", "missing"),
            ("/nothing", "missing"),
            ("/../secret", "forbidden"),
            ("/sub%20dir/../../secret", "forbidden"),
            ("/%2e%2e/secret", "forbidden"),
            ("/..%2fsecret", "missing"),
            ("/%00", "missing"),
            ("/%zz", "missing"),
            ("/link", "forbidden"),
            ("//etc/passwd", "missing"),
        ] {
            assert_eq!(status(&mut site, path), expected, "{path}");
        }
    }

    #[test]
    fn small_files_are_kept_in_memory_and_noticed_when_they_change() {
        let tree = Tree::new("cache");
        let mut site = tree.site();
        let read = |site: &mut Site, now| match site.find("/index.html", now) {
            Lookup::Found(Found { content: Content::Memory(bytes), .. }) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => panic!("not in memory"),
        };
        assert_eq!(read(&mut site, 1), "hello");
        fs::write(tree.0.join("root/index.html"), "changed").unwrap();
        assert_eq!(read(&mut site, TRUSTED / 2), "hello", "the disk is not asked each time");
        assert_eq!(read(&mut site, TRUSTED * 2), "changed");
        let Lookup::Found(big) = site.find("/big.bin", 1) else { panic!("no big.bin") };
        assert!(matches!(big.content, Content::Disk(_)));
        assert_eq!(big.kind, "application/octet-stream");
    }

    #[test]
    fn a_root_must_be_a_directory() {
        let tree = Tree::new("root");
        assert!(Site::new(&tree.0.join("secret")).is_err());
        assert!(Site::new(&tree.0.join("nowhere")).is_err());
    }
}
