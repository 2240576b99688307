//! The catalog of models (GW-91), built in from `catalog/models.yaml`.

use super::Rates;
use serde::Deserialize;
use std::collections::HashMap;

const BUILT_IN: &str = include_str!("../../catalog/models.yaml");

/// A catalog that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the model catalog is malformed: {0}")]
    Malformed(Box<str>),
    #[error("the model catalog names `{0}` twice")]
    Duplicate(Box<str>),
    #[error("the model catalog has a price of zero for `{0}`")]
    Zero(Box<str>),
}

/// How much a model takes and gives, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub context: u64,
    pub max_output: u64,
}

/// Other rates for calls that read more than `above_input_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct Tier {
    above_input_tokens: u64,
    #[serde(flatten)]
    rates: Rates,
}

/// A price and the day (`YYYY-MM-DD`) from which it counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Price {
    pub effective_from: Box<str>,
    #[serde(flatten)]
    base: Rates,
    #[serde(default)]
    tiers: Vec<Tier>,
    pub source: Box<str>,
    pub as_of: Box<str>,
}

impl Price {
    /// The rates of a call that reads `context` tokens in all: those of the highest tier that it exceeds.
    pub fn rates(&self, context: u64) -> Rates {
        let tier = self.tiers.iter().filter(|tier| context > tier.above_input_tokens);
        tier.max_by_key(|tier| tier.above_input_tokens).map_or(self.base, |tier| tier.rates)
    }
}

/// A model that the gateway knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub id: Box<str>,
    /// Type of the provider that serves it.
    pub provider: Box<str>,
    pub display_name: Box<str>,
    /// Other names under which its provider serves it.
    #[serde(default)]
    pub aliases: Vec<Box<str>>,
    /// RFC 3339.
    pub created_at: Box<str>,
    pub limits: Limits,
    pub prices: Vec<Price>,
}

impl Model {
    /// The newest price that has begun on `day` (`YYYY-MM-DD`); days compare as text.
    pub fn price_on(&self, day: &str) -> Option<&Price> {
        let begun = self.prices.iter().filter(|price| &*price.effective_from <= day);
        begun.max_by(|a, b| a.effective_from.cmp(&b.effective_from))
    }
}

/// Models by id and alias, in the order of the file.
#[derive(Clone, Debug)]
pub struct Catalog {
    models: Vec<Model>,
    names: HashMap<Box<str>, usize>,
}

impl Catalog {
    /// The catalog of this binary.
    ///
    /// # Errors
    /// None in a binary whose tests passed.
    pub fn built_in() -> Result<Self, CatalogError> {
        Self::from_yaml(BUILT_IN)
    }

    /// # Errors
    /// Malformed text, a name given twice, a rate of zero.
    pub fn from_yaml(text: &str) -> Result<Self, CatalogError> {
        let models: Vec<Model> = serde_saphyr::from_str(text)
            .map_err(|error| CatalogError::Malformed(error.to_string().into_boxed_str()))?;
        let mut names = HashMap::new();
        for (i, model) in models.iter().enumerate() {
            for name in std::iter::once(&model.id).chain(&model.aliases) {
                if names.insert(name.clone(), i).is_some() {
                    return Err(CatalogError::Duplicate(name.clone()));
                }
            }
            if model.prices.iter().any(|price| price.base.input == 0 || price.base.output == 0) {
                return Err(CatalogError::Zero(model.id.clone()));
            }
        }
        Ok(Self { models, names })
    }

    /// The model with this id or alias.
    pub fn get(&self, name: &str) -> Option<&Model> {
        self.names.get(name).and_then(|i| self.models.get(*i))
    }

    pub fn models(&self) -> &[Model] {
        &self.models
    }
}
