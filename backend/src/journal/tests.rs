//! The same tests on both drivers, on real files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use super::*;

fn engines() -> Vec<JournalEngine> {
    match probe() {
        (JournalEngine::Uring, _) => vec![JournalEngine::Uring, JournalEngine::Thread],
        (JournalEngine::Thread, _) => vec![JournalEngine::Thread],
    }
}

fn on_each_engine(test: impl AsyncFn(JournalEngine, &Path)) {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("a directory");
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(test(engine, dir.path()));
    }
}

fn append(id: u64, record: &[u8]) -> Batch {
    Batch {
        id,
        rewrite: false,
        records: vec![record.to_vec()],
    }
}

async fn write(journal: &mut Journal, batch: Batch) -> io::Result<u64> {
    let id = batch.id;
    journal.submit(batch).expect("nothing is in flight");
    let done = journal.done().await.expect("the thread lives");
    assert_eq!(done.id, id);
    done.result
}

/// A store whose file refuses to be written, as a full disk does.
fn unwritable(dir: &Path) -> Store {
    let (mut store, _) = Store::open(dir, 1).expect("a journal");
    store.file = Some(File::open(dir.join(JOURNAL_FILE)).expect("a file"));
    store
}

fn start(store: Store, engine: JournalEngine) -> Journal {
    let (batches, batches_taken) = mpsc::channel(1);
    let (done_given, done) = mpsc::channel(1);
    std::thread::spawn(move || match engine {
        JournalEngine::Uring => uring::drive_journal(store, batches_taken, done_given),
        JournalEngine::Thread => thread::drive_journal(store, batches_taken, done_given),
    });
    Journal { batches, done }
}

#[test]
fn what_was_done_is_there_after_the_next_start() {
    on_each_engine(async |engine, dir| {
        let (mut journal, replay) = Journal::open(dir, 1, engine).expect("a new journal");
        assert_eq!(replay, Replay::default());
        let one = write(&mut journal, append(1, b"one")).await.expect("room");
        let two = write(&mut journal, append(2, b"two")).await.expect("room");
        assert!(one < two);
        journal.close().await;
        let (mut journal, replay) = Journal::open(dir, 2, engine).expect("an old journal");
        assert_eq!(replay.records, [b"one", b"two"]);
        write(&mut journal, append(1, b"three"))
            .await
            .expect("room");
        journal.close().await;
        let (_, replay) = Journal::open(dir, 3, engine).expect("an old journal");
        assert_eq!(replay.records.len(), 3);
    });
}

#[test]
fn a_rewrite_replaces_everything() {
    on_each_engine(async |engine, dir| {
        let (mut journal, _) = Journal::open(dir, 1, engine).expect("a new journal");
        let long = write(&mut journal, append(1, &[7; 10_000]))
            .await
            .expect("room");
        let rewrite = Batch {
            id: 2,
            rewrite: true,
            records: vec![b"live".to_vec(), b"state".to_vec()],
        };
        let short = write(&mut journal, rewrite).await.expect("room");
        assert!(short < long);
        write(&mut journal, append(3, b"more")).await.expect("room");
        journal.close().await;
        let (_, replay) = Journal::open(dir, 2, engine).expect("an old journal");
        assert_eq!(replay.records, [&b"live"[..], b"state", b"more"]);
    });
}

#[test]
fn a_torn_tail_is_cut_off_and_told() {
    on_each_engine(async |engine, dir| {
        let (mut journal, _) = Journal::open(dir, 1, engine).expect("a new journal");
        write(&mut journal, append(1, b"one")).await.expect("room");
        write(&mut journal, append(2, b"two")).await.expect("room");
        journal.close().await;
        let path = dir.join(JOURNAL_FILE);
        let file = File::options().write(true).open(&path).expect("a file");
        file.set_len(fs::metadata(&path).expect("a file").len() - 1)
            .expect("shorter");
        let (mut journal, replay) = Journal::open(dir, 2, engine).expect("a torn journal");
        assert_eq!(replay.records, [b"one"]);
        assert_eq!(replay.torn_bytes, 10);
        write(&mut journal, append(1, b"new")).await.expect("room");
        journal.close().await;
        let (_, replay) = Journal::open(dir, 2, engine).expect("a repaired journal");
        assert_eq!((replay.records.len(), replay.torn_bytes), (2, 0));
    });
}

#[test]
fn damage_in_the_middle_names_its_offset() {
    on_each_engine(async |engine, dir| {
        let (mut journal, _) = Journal::open(dir, 1, engine).expect("a new journal");
        write(&mut journal, append(1, b"one")).await.expect("room");
        write(&mut journal, append(2, b"two")).await.expect("room");
        journal.close().await;
        let path = dir.join(JOURNAL_FILE);
        let file = File::options().write(true).open(&path).expect("a file");
        file.write_all_at(b"x", 24).expect("a byte");
        let error = Journal::open(dir, 2, engine).expect_err("a damaged journal");
        let text = error.to_string();
        assert!(text.contains("at byte 16"), "{text}");
        assert!(text.contains(JOURNAL_FILE), "{text}");
    });
}

#[test]
fn a_second_owner_is_refused() {
    on_each_engine(async |engine, dir| {
        let (journal, _) = Journal::open(dir, 1, engine).expect("a new journal");
        let error = Journal::open(dir, 2, engine).expect_err("it is in use");
        assert!(matches!(error, JournalError::Locked(_)));
        assert!(error.to_string().contains("in use by another center"));
        journal.close().await;
        Journal::open(dir, 3, engine).expect("it is free");
    });
}

#[test]
fn after_a_failed_write_only_a_rewrite_is_taken() {
    on_each_engine(async |engine, dir| {
        let mut journal = start(unwritable(dir), engine);
        write(&mut journal, append(1, b"lost"))
            .await
            .expect_err("not writable");
        write(&mut journal, append(2, b"lost"))
            .await
            .expect_err("broken");
        let rewrite = Batch {
            id: 3,
            rewrite: true,
            records: vec![b"whole".to_vec()],
        };
        write(&mut journal, rewrite).await.expect("a fresh file");
        write(&mut journal, append(4, b"more")).await.expect("room");
        journal.close().await;
        let (_, replay) = Journal::open(dir, 2, engine).expect("a journal");
        assert_eq!(replay.records, [&b"whole"[..], b"more"]);
    });
}

#[test]
fn a_failed_rewrite_leaves_the_old_file() {
    on_each_engine(async |engine, dir| {
        let (mut journal, _) = Journal::open(dir, 1, engine).expect("a new journal");
        write(&mut journal, append(1, b"old")).await.expect("room");
        // A directory of that name: the new file cannot be made.
        let obstacle = dir.join("center.journal.new");
        fs::create_dir(&obstacle).expect("a directory");
        let rewrite = |id| Batch {
            id,
            rewrite: true,
            records: vec![b"new".to_vec()],
        };
        write(&mut journal, rewrite(2))
            .await
            .expect_err("in the way");
        write(&mut journal, append(3, b"lost"))
            .await
            .expect_err("broken");
        fs::remove_dir(&obstacle).expect("an empty directory");
        journal.close().await;
        let (mut journal, replay) = Journal::open(dir, 2, engine).expect("a journal");
        assert_eq!(replay.records, [b"old"]);
        write(&mut journal, rewrite(1)).await.expect("room");
    });
}

#[test]
fn the_probe_says_why_there_is_no_ring() {
    let (engine, error) = probe();
    if std::env::var_os("SALLYPORT_TEST_WITHOUT_URING").is_some() {
        assert_eq!(engine, JournalEngine::Thread);
    }
    assert_eq!(error.is_some(), engine == JournalEngine::Thread);
}
