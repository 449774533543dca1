//! Bodies that are hard to carry.

/// Bodies that are hard to carry, each ended by CRLF unless it is empty. SMTP carries no more than this: lines of up to
/// 998 bytes, without NUL, and CR and LF only together.
pub(crate) fn bodies() -> Vec<Vec<u8>> {
    let lines =
        |lines: &[&[u8]]| lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    let dots = [b'.'; 998];
    let dotted = [b".", &[b'x'; 997][..]].concat();
    let eight_bit: Vec<u8> = (0x80..=0xff).collect();
    let all: Vec<u8> = (1..=0xff).filter(|byte| !b"\r\n".contains(byte)).collect();
    vec![
        Vec::new(),
        lines(&[b""]),
        lines(&[b"."]),
        lines(&[b".", b"..", b"...", b".", b"."]),
        lines(&[b".leading", b"..two", b" . ", b"trailing.", b"."]),
        lines(&[&[b'x'; 998], &[b'y'; 997], &[b'z'; 998]]),
        lines(&[&dots, &dots[1..], &dots]),
        lines(&[&dotted, b".", &dotted]),
        lines(&[&eight_bit]),
        lines(&[&all, &all[1..], b".", &all]),
        lines(&[b"", b"", b"", b"a", b"", b""]),
        lines(&[b"text", b"", b"", b"", b""]),
        lines(&[b"trailing space ", b"trailing tab\t", b" ", b"\t", b""]),
        lines(&[b"QUIT", b"RSET", b"DATA", b"From me", b">From you", b"MAIL FROM:<x@y>"]),
        lines(&["Żółć, 日本, \u{1f600}".as_bytes(), b"."]),
        lines(&[&[0x80; 998], &[0xff; 998]]),
        // Dots and ends of lines at every place of the sender's blocks.
        lines(&vec![&b"."[..]; 20_000]),
        lines(&vec![&b""[..]; 20_000]),
        (0..3_000).flat_map(|length| lines(&[&dots[..length % 7]])).collect(),
        noise(1_000_000),
    ]
}

/// Lines of any length and of any bytes, the same at every run.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 20_261_122_u64;
    let mut next = |bound: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut text = Vec::new();
    while text.len() < size {
        for _ in 0..next(999) {
            // One byte in four is a dot.
            let byte = if next(4) == 0 { b'.' } else { 1 + next(255) as u8 };
            text.push(if b"\r\n".contains(&byte) { b'.' } else { byte });
        }
        text.extend_from_slice(b"\r\n");
    }
    text
}
