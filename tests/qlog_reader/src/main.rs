//! Prints how many events a .sqlog has. Fails on the first record that is not one.

#![deny(missing_docs)]

use std::error::Error;

use qlog::events::Event;
use qlog::QlogSeq;

/// Every record, the head first, as the type that it must be.
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which file?")?;
    let text = std::fs::read_to_string(path)?;
    let mut records = text.split('\u{1e}').skip(1);
    let _head: QlogSeq = serde_json::from_str(records.next().ok_or("no head")?)?;
    let mut count = 0;
    for record in records {
        let _event: Event = serde_json::from_str(record).map_err(|e| format!("{e}: {record}"))?;
        count += 1;
    }
    println!("{count}");
    Ok(())
}
