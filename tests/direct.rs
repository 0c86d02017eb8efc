//! Asynchronous direct writes beside readers of the page cache.

mod mounted;

use mounted::*;
use std::fs;
use std::process::Command;

/// Writes a file again and again with io_submit(2) and O_DIRECT, each time with other bytes, while threads read it through
/// the page cache; prints how many bytes are old when all are still.
const WRITER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIZE = 640 << 10, ROUNDS = 40 };
static const char *path;
static volatile int stop;

static void *reader(void *buffer) {
    int file = open(path, O_RDONLY);
    while (!stop) pread(file, buffer, SIZE, 0);
    return 0;
}

static long old_bytes(int file, char *buffer, int value) {
    long old = 0;
    pread(file, buffer, SIZE, 0);
    for (long i = 0; i < SIZE; i++) old += buffer[i] != value;
    return old;
}

int main(int count, char **args) {
    path = args[1];
    int direct = open(path, O_WRONLY | O_DIRECT), cached = open(path, O_RDONLY);
    aio_context_t context = 0;
    if (direct < 0 || cached < 0 || syscall(SYS_io_setup, 1, &context)) return 2;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], 0, reader, malloc(SIZE));
    char *from = aligned_alloc(4096, SIZE), *to = malloc(SIZE);
    long old = 0;
    for (int round = 1; round <= ROUNDS && !old; round++) {
        memset(from, round, SIZE);
        struct iocb write = { .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = direct, .aio_buf = (unsigned long)from, .aio_nbytes = SIZE };
        struct iocb *list[] = { &write };
        struct io_event done;
        if (syscall(SYS_io_submit, context, 1, list) != 1 || syscall(SYS_io_getevents, context, 1, 1, &done, 0) != 1) return 3;
        if (done.res != SIZE) return 4;
        old = old_bytes(cached, to, round);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
    printf("%ld\n", old);
    return 0;
}
"#;

#[test]
fn readers_see_what_an_asynchronous_direct_write_wrote_when_it_is_complete() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["open=none"], &["writeback"]] {
        let mounted = Mounted::with_options(options);
        let Some(writer) = compiled(&mounted, WRITER, &["-pthread"]) else { return };
        let path = mounted.live().join("f");
        fs::write(&path, vec![0; 640 << 10]).unwrap();
        let output = Command::new(writer).arg(&path).output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "old bytes with {options:?}");
    }
}
