//! Crates that read from whatever can be read and write to whatever can be written to: compressed, JSON, CSV.
//!
//! crate: flate2 | how: `GzDecoder::new(stream)`, `GzEncoder::new(stream, ..)`
//! crate: serde_json | how: `serde_json::from_reader(stream)`, `Deserializer::from_reader(stream)` for one value after the other, `to_writer`
//! crate: csv | how: `csv::Reader::from_reader(stream)`, `csv::Writer::from_writer(stream)`

use std::io::{BufReader, Read, Write};

use books::Books;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use pila::{
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};
use serde_json::{Value, json};
use system::{PATIENCE, bounded};

mod books;
#[path = "../../system/mod.rs"]
mod system;

/// What `read` makes of what `write` writes, a connection in between; and that both have to wait for each other.
fn through_a_connection<T: 'static>(
    write: impl FnOnce(TcpStream) + 'static,
    read: impl FnOnce(TcpStream) -> T,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let writer = pila::tasklet(move || write(TcpStream::connect(address).unwrap()));
    let outcome = read(listener.accept().unwrap().0);
    writer.join().unwrap();
    outcome
}

/// Some megabytes that neither compress to nothing nor not at all.
fn text() -> Vec<u8> {
    (0..600_000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_string().into_bytes())
        .collect()
}

#[test]
fn what_is_compressed_into_a_connection_comes_out_of_it() {
    let _books = Books::open();
    bounded(PATIENCE, || {
        let write = |stream| {
            let mut encoder = GzEncoder::new(stream, Compression::fast());
            encoder.write_all(&text()).unwrap();
            encoder.finish().unwrap();
        };
        let read = |stream| {
            let mut plain = Vec::new();
            GzDecoder::new(stream).read_to_end(&mut plain).unwrap();
            plain
        };
        assert!(through_a_connection(write, read) == text());
    });
}

#[test]
fn gzip_reads_what_is_compressed_and_its_output_is_read() {
    let _books = Books::open();
    bounded(PATIENCE, || {
        let mut unpack = Command::new("gzip");
        let mut unpack =
            unpack.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut encoder = GzEncoder::new(unpack.stdin.take().unwrap(), Compression::fast());
        let writer = pila::tasklet(move || {
            encoder.write_all(&text()).and_then(|()| encoder.finish().map(drop))
        });
        assert!(unpack.wait_with_output().unwrap().stdout == text());
        writer.join().unwrap().unwrap();

        let mut pack =
            Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = pack.stdin.take().unwrap();
        let writer = pila::tasklet(move || input.write_all(&text()));
        let mut plain = Vec::new();
        GzDecoder::new(pack.stdout.take().unwrap()).read_to_end(&mut plain).unwrap();
        assert!(plain == text());
        writer.join().unwrap().unwrap();
        assert!(pack.wait().unwrap().success());
    });
}

#[test]
fn values_of_json_come_one_after_the_other() {
    let _books = Books::open();
    const COUNT: usize = 20_000;
    let value = |n: usize| json!({ "n": n, "squares": [n * n, (n + 1) * (n + 1)], "name": format!("é{n}") });
    bounded(PATIENCE, move || {
        let write = move |stream| {
            let mut stream = std::io::BufWriter::new(stream);
            for n in 0..COUNT {
                serde_json::to_writer(&mut stream, &value(n)).unwrap();
            }
        };
        let read = move |stream| {
            let values = serde_json::Deserializer::from_reader(BufReader::new(stream));
            let mut count = 0;
            for (n, read) in values.into_iter::<Value>().enumerate() {
                assert_eq!(read.unwrap(), value(n));
                count += 1;
            }
            count
        };
        assert_eq!(through_a_connection(write, read), COUNT);
        // Without a buffer in between, byte by byte: what comes after it is left.
        let write = |mut stream: TcpStream| stream.write_all(b"{\"a\": [1, 2]}").unwrap();
        let read = |stream| serde_json::from_reader::<_, Value>(stream).unwrap();
        assert_eq!(through_a_connection(write, read), json!({ "a": [1, 2] }));
    });
}

#[test]
fn records_of_csv_come_as_they_were_written() {
    let _books = Books::open();
    const COUNT: usize = 20_000;
    let record = |n: usize| [n.to_string(), format!("\"quoted\", {n}"), "two\nlines".to_string()];
    bounded(PATIENCE, move || {
        let write = move |stream| {
            let mut writer = csv::Writer::from_writer(stream);
            writer.write_record(["n", "quoted", "lines"]).unwrap();
            for n in 0..COUNT {
                writer.write_record(record(n)).unwrap();
            }
            writer.flush().unwrap();
        };
        let read = move |stream| {
            let mut reader = csv::Reader::from_reader(stream);
            let mut count = 0;
            for (n, read) in reader.records().enumerate() {
                assert!(read.unwrap().iter().eq(record(n)));
                count += 1;
            }
            count
        };
        assert_eq!(through_a_connection(write, read), COUNT);
    });
}
