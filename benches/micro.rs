//! What one recipient costs, step by step.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use sendform::audience::{E164, PhoneReader};
use sendform::ledger::LedgerKey;
use sendform::message::{Message, TemplateHead};
use sendform::offer::{CouponCode, Generator};

fn numbers(c: &mut Criterion) {
    let reader = PhoneReader::new(Some("IN")).unwrap();
    c.bench_function("read a number with country code", |b| b.iter(|| reader.read(black_box("+919876543210"))));
    c.bench_function("read a national number", |b| b.iter(|| reader.read(black_box("098765 43210"))));
    let number = E164::parse_exact("+552187654321").unwrap();
    c.bench_function("identity of a number", |b| b.iter(|| black_box(number).identity()));
}

fn hashes(c: &mut Criterion) {
    let person = E164::parse_exact("+919876543210").unwrap().identity();
    let from = E164::parse_exact("+919900112233").unwrap();
    let key = LedgerKey::from_bytes([7; 32]);
    let keys = key.send_keys("diwali-gold", 1);
    c.bench_function("send key", |b| b.iter(|| keys.of(black_box(person))));
    let alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let generator = Generator::new(key.for_codes(), "diwali-gold/1".into(), "DI", alphabet, 8);
    c.bench_function("generated code", |b| b.iter(|| generator.candidate(black_box(person), 0)));
    let message = Message {
        template: Arc::new(TemplateHead {
            key: "en".into(),
            name: "diwali_gold".into(),
            language: Some("en".into()),
            offer_text: "Diwali offer!".into(),
            has_expiration: true,
            body: "Hi {{1}}, {{2}}".into(),
            button_label: "Shop".into(),
            button_url: "https://shop.example.com/{{1}}".into(),
        }),
        media: None,
        params: vec!["Asha".into(), "Lucky Shrub".into()],
        url_param: Some("diwali?m=1001".into()),
        coupon: CouponCode::new("GOLD1234").unwrap(),
        expiry: None,
    };
    c.bench_function("content digest", |b| b.iter(|| black_box(&message).digest(from)));
}

criterion_group!(benches, numbers, hashes);
criterion_main!(benches);
