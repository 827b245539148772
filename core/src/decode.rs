//! Reading what was written as JSON, by one way for all: an agent has to hold the code for each type once, whether it
//! reads that as a message, as its own state or out of a manifest.

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_path_to_error::Track;

/// What is wrong, and at which field.
pub type Error = serde_path_to_error::Error<serde_json::Error>;

/// Reads a value, and gives the paths of what is not known in it along with it, a `?` for each option on the way.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>), Error> {
    let mut unknown = Vec::new();
    // Of one type whatever is read.
    let mut note: &mut dyn FnMut(Path<'_>) = &mut |path| unknown.push(path.to_string());
    let mut track = Track::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let read = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
    let read = read.and_then(|value| reader.end().map(|()| value));
    let value = read.map_err(|error| Error::new(track.path(), error))?;
    Ok((value, unknown))
}
