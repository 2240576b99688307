use super::*;

fn usage(input: u64, output: u64, cache_read: u64, cache_write_5m: u64, cache_write_1h: u64) -> Usage {
    Usage { input, output, cache_read, cache_write_5m, cache_write_1h }
}

#[test]
fn worked_examples_are_exact() {
    let catalog = Catalog::built_in().unwrap();
    let table: &[(&str, Usage, MicroUsd)] = &[
        ("claude-demo", usage(0, 0, 0, 0, 0), 0),
        ("claude-demo", usage(1, 0, 0, 0, 0), 1),
        ("claude-demo", usage(0, 1, 0, 0, 0), 5),
        ("claude-demo", usage(0, 0, 1, 0, 0), 1),
        ("claude-demo", usage(0, 0, 10, 0, 0), 1),
        ("claude-demo", usage(0, 0, 11, 0, 0), 2),
        ("claude-demo", usage(0, 0, 0, 4, 0), 5),
        ("claude-demo", usage(0, 0, 0, 0, 3), 6),
        ("claude-demo", usage(12, 34, 0, 0, 0), 182),
        ("claude-demo-large", usage(1_000, 100, 0, 0, 0), 22_500),
        ("claude-haiku-4-5", usage(1_000_000, 1_000_000, 0, 0, 0), 6_000_000),
        ("claude-haiku-4-5-20251001", usage(123, 45, 6_789, 0, 0), 1_027),
        ("claude-opus-4-1", usage(7, 3, 0, 1, 0), 349),
        ("claude-opus-4-5", usage(100, 200, 300, 400, 500), 13_150),
        ("claude-3-5-haiku-latest", usage(10, 10, 10, 0, 0), 49),
        ("claude-sonnet-4-5", usage(200_000, 1, 0, 0, 0), 600_015),
        ("claude-sonnet-4-5", usage(200_001, 1, 0, 0, 0), 1_200_029),
        ("claude-sonnet-4-5", usage(100_000, 0, 100_001, 0, 0), 660_001),
        ("claude-sonnet-4-5", usage(0, 0, 0, 200_001, 0), 1_500_008),
        ("claude-sonnet-4", usage(1, 1, 1, 1, 1), 29),
    ];
    for (model, usage, cost) in table {
        let quote = catalog.quote(model, "", "2026-11-22", usage);
        assert_eq!((quote.cost, quote.source), (*cost, PriceSource::Catalog), "{model} {usage:?}");
    }
}

#[test]
fn upstream_name_is_priced_before_the_requested_one_and_unknown_models_cost_the_floor() {
    let catalog = Catalog::built_in().unwrap();
    let one = usage(1_000_000, 0, 0, 0, 0);
    assert_eq!(catalog.quote("claude-demo-large", "claude-demo", "2026-11-22", &one).cost, 15_000_000);
    assert_eq!(catalog.quote("unheard-of", "claude-demo", "2026-11-22", &one).cost, 1_000_000);
    let floor = catalog.quote("unheard-of", "also", "2026-11-22", &one);
    assert_eq!((floor.cost, floor.source, floor.price_id), (5_000_000, PriceSource::Floor, None));
    let early = catalog.quote("claude-demo", "", "2025-12-31", &one);
    assert_eq!(early.source, PriceSource::Floor);
    let id = catalog.quote("claude-sonnet-4-5-20250929", "", "2026-11-22", &one).price_id;
    assert_eq!(id.as_deref(), Some("claude-sonnet-4-5@2025-09-29"));
}

#[test]
fn absurd_counts_saturate() {
    let all = usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX);
    assert_eq!(FLOOR.cost(&all), MicroUsd::MAX);
}

#[test]
fn the_built_in_catalog_is_in_order() {
    let catalog = Catalog::built_in().unwrap();
    for model in catalog.models() {
        for price in &model.prices {
            for context in [0, u64::MAX] {
                let rates = price.rates(context);
                let order =
                    [rates.cache_read, rates.input, rates.cache_write_5m, rates.cache_write_1h, rates.output];
                assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{}: {order:?}", model.id);
            }
            for day in [&price.effective_from, &price.as_of] {
                let digits = day.bytes().filter(u8::is_ascii_digit).count();
                assert!(day.len() == 10 && digits == 8, "{}: {day}", model.id);
            }
            assert!(!price.source.is_empty());
        }
    }
}

#[test]
fn faulty_catalogs_are_refused() {
    let model = |id: &str, input: &str| {
        format!(
            "- {{id: {id}, provider: demo, display_name: X, created_at: x, limits: {{context: 1, max_output: 1}}, \
             prices: [{{effective_from: x, input: {input}, output: 1, cache_read: 1, cache_write_5m: 1, \
             cache_write_1h: 1, source: x, as_of: x}}]}}\n"
        )
    };
    let twice = model("a", "1") + &model("a", "1");
    assert!(matches!(Catalog::from_yaml(&twice), Err(CatalogError::Duplicate(_))));
    assert!(matches!(Catalog::from_yaml(&model("a", "0")), Err(CatalogError::Zero(_))));
    assert!(matches!(Catalog::from_yaml(&model("a", "1.5")), Err(CatalogError::Malformed(_))));
    assert!(Catalog::from_yaml(&model("a", "1")).is_ok());
}
