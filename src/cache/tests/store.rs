//! Tests of `cache::files::store`.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;

const TEXT: &[u8] = b"GET http://a.example/";

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 7).unwrap();
    (dir, store)
}

fn put(store: &Store, body: &[u8]) -> Key {
    let len = Some(body.len() as u64);
    let mut writer = store.begin(1, TEXT, b"meta", 200, b"a: b\r\n", len).unwrap();
    body.chunks(1000).for_each(|chunk| writer.append(chunk).unwrap());
    let finished = writer.finish().unwrap();
    assert_eq!(finished.body_len, body.len() as u64);
    let (stamp, key) = (finished.stamp, key_of(TEXT));
    finished.commit(&key).unwrap();
    assert_eq!(store.open_object(&key, TEXT).unwrap().unwrap().stamp.get(), stamp);
    key
}

fn verify(object: &Object) -> Result<usize, OpenError> {
    let (mut verify, mut scratch, mut n_steps) = (object.verify(), Vec::new(), 1);
    while !verify.step(object, &mut scratch)? {
        n_steps += 1;
    }
    Ok(n_steps)
}

#[test]
fn a_body_of_every_size_is_read_as_it_was_written() {
    let (dir, store) = store();
    for len in [0, 1, 5000, 8090, 8192, 20_000, 3 << 20] {
        let body: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        let key = put(&store, &body);
        let object = store.open_object(&key, TEXT).unwrap().unwrap();
        assert_eq!((object.key_text(), object.meta()), (TEXT, &b"meta"[..]));
        assert_eq!((object.head(), object.status()), (&b"a: b\r\n"[..], 200));
        assert!(object.read_body(len).unwrap().unwrap() == body);
        assert!(len == 0 || object.read_body(len - 1).unwrap().is_none());
        assert_eq!(verify(&object).unwrap(), len.div_ceil(1 << 20).max(1));
    }
    assert_eq!(std::fs::read_dir(dir.path().join(TMP)).unwrap().count(), 0);
    let key = key_of(TEXT);
    assert!(store.exists(&key) && store.unlink(&key).unwrap() && !store.unlink(&key).unwrap());
    assert!(store.open_any(&key).unwrap().is_none());
}

#[test]
fn an_emptied_directory_is_filled_again_and_a_missing_one_is_not_made() {
    let (dir, store) = store();
    assert!(store.is_empty());
    put(&store, b"before");
    assert!(!store.is_empty());
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    assert!(store.open_any(&key_of(TEXT)).unwrap().is_none());
    let key = put(&store, b"after");
    let object = store.open_object(&key, TEXT).unwrap().unwrap();
    assert_eq!(object.read_body(9).unwrap().unwrap(), b"after");
    std::fs::remove_dir_all(dir.path()).unwrap();
    let refusal = store.begin(2, TEXT, b"", 200, b"", None).unwrap_err();
    assert_eq!(refusal.kind(), io::ErrorKind::NotFound);
    assert!(refusal.to_string().contains("tmp/0000000000000002"), "{refusal}");
    assert!(!dir.path().exists());
}

#[test]
fn a_front_longer_than_the_first_read_is_read_whole() {
    let (_dir, store) = store();
    let head = vec![b'h'; 100_000];
    let mut writer = store.begin(1, TEXT, b"", 200, &head, None).unwrap();
    writer.append(b"body").unwrap();
    writer.finish().unwrap().commit(&key_of(TEXT)).unwrap();
    let object = store.open_any(&key_of(TEXT)).unwrap().unwrap();
    assert_eq!(object.head(), head);
    assert_eq!(object.read_body(4).unwrap().unwrap(), b"body");
}

#[test]
fn damage_of_any_kind_is_a_fault() {
    type Damage = (fn(&File), Fault);
    let damages: [Damage; 6] = [
        (|file| file.set_len(30).unwrap(), Fault::Cut),
        (|file| file.set_len(140).unwrap(), Fault::Cut),
        (|file| file.set_len(9000).unwrap(), Fault::Cut),
        (|file| file.set_len(1 << 20).unwrap(), Fault::TooLong),
        (|file| file.write_all_at(b"?", 134).unwrap(), Fault::FrontDamaged),
        (|file| file.write_all_at(b"?", 33).unwrap(), Fault::HeaderDamaged),
    ];
    for (damage, expected) in damages {
        let (_dir, store) = store();
        let key = put(&store, &[5; 10_000]);
        damage(&OpenOptions::new().write(true).open(store.path(&key)).unwrap());
        let error = store.open_object(&key, TEXT).unwrap_err();
        assert!(matches!(error, OpenError::Fault(fault) if fault == expected), "{error}");
    }
    let (_dir, store) = store();
    let key = put(&store, &[5; 10_000]);
    let file = OpenOptions::new().write(true).open(store.path(&key)).unwrap();
    let before = store.open_any(&key).unwrap().unwrap();
    let stamp = before.stamp.get();
    assert!(before.is_unchanged());
    file.write_all_at(b"?", 9_999).unwrap();
    assert!(!before.is_unchanged());
    let object = store.open_any(&key).unwrap().unwrap();
    assert!(object.read_body(10_000).is_err() && verify(&object).is_err());
    assert_ne!(object.stamp.get(), stamp);
}

#[test]
fn anything_but_a_regular_file_is_a_fault_and_is_replaced() {
    let (_dir, store) = store();
    let path = store.path(&put(&store, b"x"));
    let kinds: [fn(&Path); 3] = [
        |path| std::fs::create_dir(path).unwrap(),
        |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
    ];
    for make in kinds {
        std::fs::remove_file(&path).unwrap();
        make(&path);
        let opened = store.open_any(&key_of(TEXT));
        assert!(matches!(opened, Err(OpenError::Fault(Fault::NoFile))), "{opened:?}");
        assert!(!store.exists(&key_of(TEXT)));
        put(&store, b"x");
    }
    assert!(store.unlink(&key_of(TEXT)).unwrap());
    std::fs::create_dir_all(path.join("full")).unwrap();
    let writer = store.begin(9, TEXT, b"", 200, b"", None).unwrap();
    let error = writer.finish().unwrap().commit(&key_of(TEXT)).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("not empty"), "{error}");
    assert!(store.unlink(&key_of(TEXT)).is_err());
    assert_eq!(std::fs::read_dir(store.dir().join(TMP)).unwrap().count(), 0);
}

#[test]
fn a_foreign_key_text_is_a_fault() {
    let (_dir, store) = store();
    let key = put(&store, b"x");
    let other = key_of(b"other");
    std::fs::create_dir_all(store.path(&other).parent().unwrap()).unwrap();
    std::fs::rename(store.path(&key), store.path(&other)).unwrap();
    for opened in [store.open_object(&other, b"other"), store.open_any(&other)] {
        assert!(matches!(opened, Err(OpenError::Fault(Fault::ForeignKey))));
    }
}

#[test]
fn a_fill_is_readable_while_it_grows_and_gone_when_dropped() {
    let (_dir, store) = store();
    let mut writer = store.begin(9, TEXT, b"", 200, b"", None).unwrap();
    writer.append(b"abc").unwrap();
    let follower = store.open_fill(9, Access::Wait).unwrap().unwrap();
    assert_eq!((follower.key_text(), follower.front.header.body_len), (TEXT, None));
    let mut bytes = [0; 3];
    follower.file.read_exact_at(&mut bytes, follower.body_offset()).unwrap();
    assert_eq!(&bytes, b"abc");
    drop(writer);
    assert!(store.open_fill(9, Access::Wait).unwrap().is_none());
}

#[test]
fn a_body_of_another_length_than_announced_is_never_kept() {
    let (dir, store) = store();
    let mut writer = store.begin(9, TEXT, b"", 200, b"", Some(3)).unwrap();
    assert!(writer.append(b"abcd").is_err());
    writer.append(b"ab").unwrap();
    assert!(writer.finish().is_err());
    drop(store.begin(9, TEXT, b"", 200, b"", None).unwrap().finish().unwrap());
    assert_eq!(std::fs::read_dir(dir.path().join(TMP)).unwrap().count(), 0);
}
