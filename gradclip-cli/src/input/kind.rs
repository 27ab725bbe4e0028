//! What a file that is no safetensors file seems to be, by its first bytes, and what to do about it.

/// First bytes, what has them, what to do.
const MAGIC: &[(&[u8], &str)] = &[
    (b"GGUF", "a GGUF file, as llama.cpp has; give the safetensors file it was made from"),
    (b"\x93NUMPY", "a NumPy array (.npy); save it by safetensors.numpy.save_file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes; save its arrays by safetensors.numpy.save_file"),
    (b"\x1f\x8b", "gzip data; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data; unpack it first"),
    (b"\xfd7zXZ\0", "xz data; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"PAR1", "a Parquet table"),
    (b"\x89PNG\r\n", "a picture"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
];

/// Bytes at the beginning that are looked at.
const LOOKED_AT: usize = 4096;

/// A sentence's end about these bytes, `None` where they are like nothing known.
pub(super) fn guess(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    let known = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what);
    known
        .or_else(|| if start.starts_with(b"PK\x03\x04") { Some(zip(start)) } else { None })
        .or_else(|| if pickled(start) { Some(PICKLE) } else { None })
        .or_else(|| if start.get(257..262) == Some(b"ustar") { Some(TAR) } else { None })
        .or_else(|| text(start))
        .or_else(|| {
            let zeros = bytes.len() >= 64 && start.iter().all(|&b| b == 0);
            zeros.then_some("zeros, as a download or a disk leaves that was interrupted; fetch it again")
        })
}

/// Whether these bytes are text that may hold numbers.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    !bytes.is_empty() && matches!(text(start), Some("JSON" | "plain text"))
}

const PICKLE: &str = "a Python pickle, as torch.save wrote until PyTorch 1.6; load it with torch.load and save \
     it by safetensors.torch.save_file";
const TAR: &str = "a tar archive; unpack it first";

/// By the name of its first member.
fn zip(start: &[u8]) -> &'static str {
    let holds = |part: &[u8]| start.windows(part.len()).any(|window| window == part);
    if holds(b".npy") {
        "a NumPy archive (.npz); save its arrays by safetensors.numpy.save_file"
    } else if holds(b"data.pkl") || holds(b"/byteorder") || holds(b"/version") {
        "a PyTorch file (torch.save: a zip with a pickle in it); load it with torch.load and save it by \
         safetensors.torch.save_file"
    } else {
        "a zip archive; unpack it first"
    }
}

/// Protocols 2 to 5 begin with their number and then an opcode that begins a frame or a value.
fn pickled(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, opcode, ..] if b"\x95\x8a\x8c}](cXJKMGN".contains(opcode))
}

/// Text, by what it begins with.
fn text(start: &[u8]) -> Option<&'static str> {
    let whole = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.valid_up_to() + 4 > start.len() && error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return None,
    };
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    if whole.is_empty() || !whole.chars().all(plain) {
        return None;
    }
    let begin = whole.trim_start_matches('\u{feff}').trim_start();
    let lower: String = begin.chars().take(64).collect::<String>().to_lowercase();
    Some(match () {
        () if begin.starts_with("version https://git-lfs") => {
            "a Git LFS pointer, not the file itself; fetch it by `git lfs pull`"
        }
        () if lower.starts_with("<!doctype html") || lower.starts_with("<html") => {
            "a web page (HTML), as a failed download leaves; fetch the file itself"
        }
        () if begin.starts_with('{') && whole.contains("\"weight_map\"") => {
            "JSON, an index of shards; its name has to end in `.safetensors.index.json` to be read as one"
        }
        () if begin.starts_with('{') || array(begin) => "JSON",
        () if begin.starts_with('<') => "XML",
        () => "plain text",
    })
}

/// `[section]` begins a settings file.
fn array(text: &str) -> bool {
    let inner = text.strip_prefix('[').map(|rest| rest.trim_start().chars().next());
    matches!(inner, Some(Some('"' | '{' | '[' | ']' | '-' | '0'..='9')))
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn first_bytes_tell() {
        let mut tar = vec![b'a'; 512];
        tar[5..].fill(0);
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], &str); 17] = [
            (b"{\"metadata\": {}, \"weight_map\": {}}", "an index of shards"),
            (b" [1, 2]", "JSON"),
            (b"[section]\nkey = 1\n", "plain text"),
            (b"PK\x03\x04....archive/data.pkl", "PyTorch"),
            (b"PK\x03\x04....w.npy", ".npz"),
            (b"PK\x03\x04....word/document.xml", "zip"),
            (b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "pickle"),
            (b"\x80\x04\x95\x1f\0\0\0\0\0\0\0}", "pickle"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x93NUMPY\x01\0", ".npy"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            (b"<!DOCTYPE html>\n<html>", "HTML"),
            (b"0.5\n0.75\n", "plain text"),
            (&[0; 100], "zeros"),
            (&tar, "tar"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x89HDF\r\n\x1a\n\0", "HDF5"),
        ];
        for (bytes, says) in cases {
            assert!(guess(bytes).is_some_and(|what| what.contains(says)), "{says}: {:?}", guess(bytes));
        }
        let other: [&[u8]; 4] = [b"", &[0; 8], b"\x18\0\0\0\0\0\0\0{\"a\":1}", &[0xff; 40]];
        for bytes in other {
            assert_eq!(guess(bytes), None, "{bytes:?}");
        }
    }
}
