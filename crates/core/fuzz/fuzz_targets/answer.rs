//! Any status, headers and body are read without a panic, as success or as an error of a kind.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, Vec<(u8, Vec<u8>)>, Vec<u8>)| {
    let (status, headers, body) = input;
    feishu_feed_card::binding::fuzz_answer(status, &headers, body);
});
