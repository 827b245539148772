//! Reading what was written as JSON, by one way for all: an agent has to hold the code for each type once, whether it
//! reads that as a message or as its own state.

use serde::de::DeserializeOwned;

/// Reads a value, and gives the paths of what is not known in it along with it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>), serde_json::Error> {
    let mut unknown = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_ignored::deserialize(&mut reader, |path| unknown.push(path.to_string()))?;
    reader.end()?;
    Ok((value, unknown))
}
