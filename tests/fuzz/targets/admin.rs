//! See `ringstore_fuzz::bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringstore_fuzz::run(ringstore_fuzz::bodies::body("admin"), bytes));
