//! Settings from a TOML or YAML file: keys are the long flags, lists may be lists or comma-separated text.

use std::{fs, path::Path};

use serde::{Deserialize, Deserializer, de};

use super::{CaptureArgs, CaptureError};

/// Reads the settings in the file at `path`; its extension says which language it is in.
pub(super) fn settings(path: &Path) -> Result<CaptureArgs, CaptureError> {
    let wrong = |why: String| CaptureError::File { path: path.to_owned(), why };
    let text = fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned())),
        Some("yaml" | "yml") => serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string())),
        _ => Err(wrong("is neither TOML nor YAML by its name; call it .toml, .yaml or .yml".to_owned())),
    }
}

/// Text, a number, or a list of these, which becomes comma-separated text.
pub(super) fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "give text, a number, or a list of these")]
    enum Value {
        Number(u32),
        Text(String),
        List(Vec<Item>),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Item {
        Number(u32),
        Text(String),
    }
    let item = |item| match item {
        Item::Number(number) => Ok(number.to_string()),
        Item::Text(text) if text.contains(',') => {
            Err(de::Error::custom(format!("`{text}` is one item of a list but holds a comma")))
        }
        Item::Text(text) => Ok(text),
    };
    Ok(Some(match Value::deserialize(value)? {
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text,
        Value::List(list) => list.into_iter().map(item).collect::<Result<Vec<_>, _>>()?.join(","),
    }))
}
