//! Schedules against the numbers of PyTorch's and Keras' schedulers, or of their formulas in 50 digits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gradclip::ScheduleError::Argument;
use gradclip::{Schedule, ScheduleError};

const END: u64 = u64::MAX;

#[track_caller]
fn check(schedule: &Schedule, want: &[(u64, f64)]) {
    for &(t, want) in want {
        let got = schedule.at(t);
        assert!((got - want).abs() <= 1e-12 * want, "{schedule:?}, step {t}: {got:e}, not {want:e}");
    }
}

#[track_caller]
fn check_error(schedule: Result<Schedule, ScheduleError>, what: &str, required: &str, given: f64) {
    let error = schedule.unwrap_err();
    assert_eq!(error.to_string(), format!("schedule, {what}: required {required}, given {given}"));
    let Argument { given: held, .. } = error else { panic!("{error:?}") };
    assert_eq!(held.to_bits(), given.to_bits());
}

#[test]
fn constant() {
    check(&Schedule::constant(0.25).unwrap(), &[(0, 0.25), (1, 0.25), (END, 0.25)]);
    check(&Schedule::constant(0.0).unwrap(), &[(0, 0.0), (END, 0.0)]);
}

#[test]
fn polynomial() {
    // PolynomialLR(total_iters=10, power=0.9).
    check(
        &Schedule::polynomial(0.1, 10, 0.9).unwrap(),
        &[
            (0, 0.1),
            (1, 0.09095325760829623),
            (5, 0.05358867312681466),
            (9, 0.01258925411794167),
            (10, 0.0),
            (11, 0.0),
            (END, 0.0),
        ],
    );
    // LinearLR(start_factor=1, end_factor=0, total_iters=7).
    check(
        &Schedule::polynomial(0.3, 7, 1.0).unwrap(),
        &[
            (0, 0.3),
            (1, 0.2571428571428572),
            (3, 0.17142857142857149),
            (6, 0.04285714285714288),
            (7, 0.0),
            (8, 0.0),
        ],
    );
    // PolynomialDecay(decay_steps=1000, end_learning_rate=0, power=3).
    check(
        &Schedule::polynomial(0.02, 1000, 3.0).unwrap(),
        &[(0, 0.02), (1, 0.01994005998), (500, 0.0025), (999, 2e-11), (1000, 0.0), (2000, 0.0)],
    );
    // One step, a power of 0, and as many steps as there are.
    check(&Schedule::polynomial(0.5, 1, 2.0).unwrap(), &[(0, 0.5), (1, 0.0)]);
    check(&Schedule::polynomial(0.5, 4, 0.0).unwrap(), &[(0, 0.5), (3, 0.5), (4, 0.0)]);
    check(
        &Schedule::polynomial(1.0, END, 2.0).unwrap(),
        &[(1, 1.0), (END / 2, 0.25), (END - 1, 2.938735877055719e-39), (END, 0.0)],
    );
}

#[test]
fn inverse_sqrt() {
    check(
        &Schedule::inverse_sqrt(1e-3).unwrap(),
        &[
            (0, 1e-3),
            (1, 0.0007071067811865475),
            (3, 0.0005),
            (9999, 1e-5),
            (10u64.pow(18), 1e-12),
            (END, 2.3283064365386963e-13),
        ],
    );
}

#[test]
fn inverse_time() {
    // InverseTimeDecay(decay_steps=100, decay_rate=0.5).
    check(
        &Schedule::inverse_time(0.1, 200.0, 1.0).unwrap(),
        &[
            (0, 0.1),
            (1, 0.09950248756218907),
            (100, 0.06666666666666667),
            (200, 0.05),
            (1_000_000, 1.9996000799840032e-5),
        ],
    );
    check(
        &Schedule::inverse_time(0.5, 8.0, 0.75).unwrap(),
        &[
            (0, 0.5),
            (1, 0.4577260319793595),
            (8, 0.29730177875068026),
            (1_000_000, 7.521161059251559e-5),
            (END, 8.449824768794095e-15),
        ],
    );
    check(&Schedule::inverse_time(0.5, 8.0, 0.0).unwrap(), &[(0, 0.5), (END, 0.5)]);
    // t/γ or its power overflows.
    check(&Schedule::inverse_time(0.5, 5e-324, 1.0).unwrap(), &[(0, 0.5), (1, 0.0), (END, 0.0)]);
    check(&Schedule::inverse_time(0.5, 1.0, 1e4).unwrap(), &[(0, 0.5), (END, 0.0)]);
    check(&Schedule::inverse_time(0.0, 5e-324, 1e4).unwrap(), &[(0, 0.0), (END, 0.0)]);
}

#[test]
fn exponential() {
    // ExponentialLR(gamma=0.97).
    check(
        &Schedule::exponential(0.1, 0.97).unwrap(),
        &[
            (0, 0.1),
            (1, 0.097),
            (10, 0.0737424126894928),
            (100, 0.004755250792540566),
            (1000, 5.911997833619925e-15),
            (END, 0.0),
        ],
    );
    check(
        &Schedule::exponential(0.1, 0.9).unwrap(),
        &[(100, 2.6561398887587545e-6), (5000, 1.6313501853428272e-230)],
    );
    // ExponentialLR(gamma=1.05), and the limit.
    check(
        &Schedule::exponential(1e-7, 1.05).unwrap(),
        &[(0, 1e-7), (1, 1.05e-7), (100, 1.3150125784630407e-5), (400, 29.903335124884485)],
    );
    check(
        &Schedule::exponential(1e-3, 1.1).unwrap(),
        &[(1000, 2.469932918006026e38), (6000, 2.2704448090626453e245)],
    );
    assert_eq!(Schedule::exponential(2.0, 2.0).unwrap().at(1023), f64::MAX);
    assert_eq!(Schedule::exponential(2.0, 2.0).unwrap().at(END), f64::MAX);
    assert_eq!(Schedule::exponential(0.0, 2.0).unwrap().at(END), 0.0);
    check(&Schedule::exponential(0.3, 1.0).unwrap(), &[(0, 0.3), (END, 0.3)]);
}

#[test]
fn step_decay() {
    // StepLR(step_size=30, gamma=0.1).
    check(
        &Schedule::step_decay(0.1, 30, 0.1).unwrap(),
        &[
            (0, 0.1),
            (29, 0.1),
            (30, 0.010000000000000002),
            (59, 0.010000000000000002),
            (60, 0.0010000000000000002),
            (90, 0.00010000000000000003),
            (END, 0.0),
        ],
    );
    check(&Schedule::step_decay(0.1, END, 0.5).unwrap(), &[(0, 0.1), (END - 1, 0.1), (END, 0.05)]);
    assert_eq!(Schedule::step_decay(1.0, 1, 0.5).unwrap().at(10), 1.0 / 1024.0);
    assert_eq!(Schedule::step_decay(1.0, 10, 2.0).unwrap().at(END), f64::MAX);
}

#[test]
fn cosine() {
    // CosineAnnealingLR(T_max=100, eta_min=3e-5).
    check(
        &Schedule::cosine(3e-4, 3e-5, 100).unwrap(),
        &[
            (0, 3e-4),
            (1, 0.00029993338564937377),
            (25, 0.000260459415460184),
            (50, 0.0001650000000000001),
            (75, 6.954058453981616e-5),
            (99, 3.0066614350626235e-5),
            (100, 3e-5),
            (101, 3e-5),
            (END, 3e-5),
        ],
    );
    // CosineDecay(decay_steps=400, alpha=0.1), in f64.
    check(
        &Schedule::cosine(0.05, 0.005, 400).unwrap(),
        &[
            (0, 0.05),
            (1, 0.04999930604700777),
            (100, 0.04340990257669732),
            (200, 0.0275),
            (399, 0.005000693952992233),
            (400, 0.005),
            (1_000_000, 0.005),
        ],
    );
    // Near the end 1 + cos keeps no digit.
    check(
        &Schedule::cosine(1.0, 0.0, 100_000_000).unwrap(),
        &[(99_999_000, 2.467401100069404e-10), (99_999_999, 2.4674011002723397e-16), (100_000_000, 0.0)],
    );
    check(
        &Schedule::cosine(0.1, 0.0, END).unwrap(),
        &[
            (1, 0.1),
            (END / 2, 0.05),
            (END - (1 << 40), 8.765969640024922e-16),
            (END - 1, 7.251040136457124e-40),
            (END, 0.0),
        ],
    );
    // Rising, one step, and ends that are the arguments themselves.
    check(&Schedule::cosine(0.0, 0.1, 2).unwrap(), &[(0, 0.0), (1, 0.05), (2, 0.1), (3, 0.1)]);
    for (initial, last) in [(0.1, 0.003), (1e-300, 0.7), (f64::MAX, f64::MAX)] {
        let schedule = Schedule::cosine(initial, last, 1).unwrap();
        assert_eq!((schedule.at(0), schedule.at(1), schedule.at(END)), (initial, last, last));
    }
}

#[test]
fn warm_up() {
    // SequentialLR([LinearLR(1/5, total_iters=4), CosineAnnealingLR(10, 0.01)], milestones=[4]).
    let cosine = Schedule::cosine(0.1, 0.01, 10).unwrap();
    check(
        &cosine.clone().warm_up(4),
        &[
            (0, 0.020000000000000004),
            (1, 0.04000000000000001),
            (2, 0.06000000000000001),
            (3, 0.08000000000000002),
            (4, 0.1),
            (5, 0.09779754323328192),
            (9, 0.05500000000000001),
            (13, 0.012202456766718092),
            (14, 0.01),
            (END, 0.01),
        ],
    );
    assert_eq!(cosine.clone().warm_up(0), cosine);
    check(&cosine.clone().warm_up(1), &[(0, 0.05), (1, 0.1), (11, 0.01)]);
    // A step before the last there is.
    check(
        &Schedule::constant(0.5).unwrap().warm_up(END),
        &[(0, 2.710505431213761e-20), (1 << 63, 0.25), (END - 1, 0.5), (END, 0.5)],
    );
    // Twice: the first rate of a warmed-up schedule is that of its warm-up.
    check(
        &Schedule::constant(1.0).unwrap().warm_up(1).warm_up(1),
        &[(0, 0.25), (1, 0.5), (2, 1.0), (3, 1.0)],
    );
}

#[test]
fn then() {
    // SequentialLR([StepLR(2, 0.5), PolynomialLR(8, 2)], milestones=[5]).
    let schedule =
        Schedule::step_decay(0.2, 2, 0.5).unwrap().then(5, Schedule::polynomial(0.2, 8, 2.0).unwrap());
    check(
        &schedule,
        &[
            (0, 0.2),
            (1, 0.2),
            (2, 0.1),
            (4, 0.05),
            (5, 0.2),
            (6, 0.153125),
            (9, 0.05),
            (12, 0.003125),
            (13, 0.0),
            (END, 0.0),
        ],
    );
    // SGDR's restarts, each twice as long.
    let cosine = |steps| Schedule::cosine(1.0, 0.0, steps).unwrap();
    let restarts = cosine(2).then(2, cosine(4).then(4, cosine(8)));
    check(&restarts, &[(0, 1.0), (1, 0.5), (2, 1.0), (4, 0.5), (6, 1.0), (10, 0.5), (14, 0.0)]);
    // At 0 and at the last step.
    let (one, two) = (Schedule::constant(1.0).unwrap(), Schedule::constant(2.0).unwrap());
    check(&one.clone().then(0, two.clone()), &[(0, 2.0), (END, 2.0)]);
    check(&one.then(END, two), &[(0, 1.0), (END - 1, 1.0), (END, 2.0)]);
}

#[test]
fn times() {
    // ChainedScheduler([ExponentialLR(0.9), StepLR(3, 0.5)]).
    let schedule = Schedule::exponential(0.4, 0.9).unwrap().times(Schedule::step_decay(1.0, 3, 0.5).unwrap());
    check(
        &schedule,
        &[
            (0, 0.4),
            (1, 0.36000000000000004),
            (2, 0.32400000000000007),
            (3, 0.14580000000000004),
            (7, 0.04782969000000002),
            (9, 0.01937102445000001),
        ],
    );
    let grows = Schedule::exponential(1.0, 2.0).unwrap();
    assert_eq!(grows.clone().times(grows.clone()).at(600), f64::MAX);
    assert_eq!(grows.times(Schedule::constant(0.0).unwrap()).at(END), 0.0);
}

#[test]
fn at_least() {
    let schedule = Schedule::polynomial(1.0, 4, 1.0).unwrap().at_least(0.3).unwrap();
    check(&schedule, &[(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.3), (4, 0.3), (END, 0.3)]);
}

#[test]
fn the_iterator_gives_the_steps_in_order() {
    let schedule = Schedule::polynomial(1.0, 4, 1.0).unwrap().warm_up(1);
    let rates: Vec<f64> = schedule.iter().take(7).collect();
    assert_eq!(rates, [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
}

#[test]
fn finite_and_not_negative_whatever_the_arguments() {
    let rates = [-0.0, 0.0, 5e-324, 1e-3, 1.0, f64::MAX];
    let positive = [5e-324, 1e-3, 1.0 - f64::EPSILON, 1.0, 1.0 + f64::EPSILON, 1e3, f64::MAX];
    let powers = [-0.0, 0.0, 5e-324, 0.5, 1.0, 1e4, f64::MAX];
    let steps = [1, 2, 1000, (1 << 53) + 1, END - 1, END];
    let mut all = Vec::new();
    for rate in rates {
        all.extend([Schedule::constant(rate).unwrap(), Schedule::inverse_sqrt(rate).unwrap()]);
        for steps in steps {
            all.extend(rates.map(|last| Schedule::cosine(rate, last, steps).unwrap()));
            all.extend(powers.map(|power| Schedule::polynomial(rate, steps, power).unwrap()));
            all.extend(positive.map(|factor| Schedule::step_decay(rate, steps, factor).unwrap()));
        }
        for scale in positive {
            all.push(Schedule::exponential(rate, scale).unwrap());
            all.extend(powers.map(|power| Schedule::inverse_time(rate, scale, power).unwrap()));
        }
    }
    let largest = Schedule::constant(f64::MAX).unwrap();
    let composed: Vec<_> = all
        .iter()
        .flat_map(|schedule| {
            let warm = steps.map(|steps| schedule.clone().warm_up(steps).then(steps, largest.clone()));
            let other = [schedule.clone().times(largest.clone()), schedule.clone().at_least(-0.0).unwrap()];
            warm.into_iter().chain(other)
        })
        .collect();
    for schedule in all.iter().chain(&composed) {
        for t in [0, 1, 2, 499, 500, 999, 1000, 1 << 53, 1 << 63, END - 1, END] {
            let rate = schedule.at(t);
            assert!(rate.is_finite() && rate.is_sign_positive(), "{schedule:?}, step {t}: {rate}");
        }
    }
}

#[test]
fn every_error_says_what_was_required_and_given() {
    let not_negative = "0 or more and finite";
    for bad in [-1.0, -5e-324, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        check_error(Schedule::constant(bad), "rate", not_negative, bad);
        for schedule in [
            Schedule::polynomial(bad, 10, 1.0),
            Schedule::inverse_sqrt(bad),
            Schedule::inverse_time(bad, 1.0, 1.0),
            Schedule::exponential(bad, 0.5),
            Schedule::step_decay(bad, 10, 0.5),
            Schedule::cosine(bad, 0.0, 10),
        ] {
            check_error(schedule, "initial rate", not_negative, bad);
        }
        check_error(Schedule::cosine(1.0, bad, 10), "last rate", not_negative, bad);
        check_error(Schedule::constant(1.0).unwrap().at_least(bad), "floor", not_negative, bad);
        check_error(Schedule::polynomial(1.0, 10, bad), "power", not_negative, bad);
        check_error(Schedule::inverse_time(1.0, 1.0, bad), "power", not_negative, bad);
    }
    for bad in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        check_error(Schedule::inverse_time(1.0, bad, 1.0), "time scale", "above 0 and finite", bad);
        check_error(Schedule::exponential(1.0, bad), "factor", "above 0 and finite", bad);
        check_error(Schedule::step_decay(1.0, 10, bad), "factor", "above 0 and finite", bad);
    }
    for schedule in
        [Schedule::polynomial(1.0, 0, 1.0), Schedule::step_decay(1.0, 0, 0.5), Schedule::cosine(1.0, 0.0, 0)]
    {
        check_error(schedule, "number of steps", "1 or more", 0.0);
    }
    let error = Schedule::constant(-1.0).unwrap_err();
    assert_eq!(error, Argument { what: "rate", required: not_negative, given: -1.0 });
}

#[cfg(feature = "serde")]
#[test]
fn serialised_and_back() {
    let constant = |rate| Schedule::constant(rate).unwrap();
    let schedule = Schedule::cosine(0.5, 0.25, 100)
        .unwrap()
        .then(100, Schedule::polynomial(0.25, 10, 2.0).unwrap())
        .then(120, Schedule::inverse_sqrt(0.125).unwrap())
        .then(140, Schedule::inverse_time(0.125, 8.0, 0.75).unwrap())
        .then(160, Schedule::exponential(0.125, 0.75).unwrap())
        .times(Schedule::step_decay(1.0, 30, 0.5).unwrap())
        .at_least(0.0625)
        .unwrap()
        .warm_up(10)
        .then(END, constant(0.0));
    let text = serde_json::to_string(&schedule).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);

    // What is written stays readable.
    let text = r#"{"WarmUp":{"steps":3,"schedule":{"Polynomial":{"initial":0.5,"steps":10,"power":1.0}}}}"#;
    let warm = Schedule::polynomial(0.5, 10, 1.0).unwrap().warm_up(3);
    assert_eq!(serde_json::to_string(&warm).unwrap(), text);
    assert_eq!(serde_json::from_str::<Schedule>(text).unwrap(), warm);
}

#[cfg(feature = "serde")]
#[test]
fn what_the_constructors_refuse_is_not_deserialised() {
    let constant = r#"{"Constant":{"rate":1.0}}"#;
    let bad = r#"{"Constant":{"rate":-1.0}}"#;
    let within = |text: &str| {
        [
            text.to_owned(),
            format!(r#"{{"WarmUp":{{"steps":3,"schedule":{text}}}}}"#),
            format!(r#"{{"Then":{{"first":{text},"at":3,"next":{constant}}}}}"#),
            format!(r#"{{"Then":{{"first":{constant},"at":3,"next":{text}}}}}"#),
            format!(r#"{{"Times":{{"a":{text},"b":{constant}}}}}"#),
            format!(r#"{{"Times":{{"a":{constant},"b":{text}}}}}"#),
            format!(r#"{{"AtLeast":{{"floor":0.0,"schedule":{text}}}}}"#),
        ]
    };
    for text in within(constant) {
        assert!(serde_json::from_str::<Schedule>(&text).is_ok(), "{text}");
    }
    for text in within(bad) {
        let error = serde_json::from_str::<Schedule>(&text).unwrap_err().to_string();
        assert!(error.contains("schedule, rate: required 0 or more and finite, given -1"), "{text}: {error}");
    }
    for text in [
        r#"{"Constant":{"rate":null}}"#,
        r#"{"Polynomial":{"initial":1.0,"steps":0,"power":1.0}}"#,
        r#"{"Polynomial":{"initial":1.0,"steps":10,"power":-1.0}}"#,
        r#"{"InverseSqrt":{"initial":-1.0}}"#,
        r#"{"InverseTime":{"initial":1.0,"scale":0.0,"power":1.0}}"#,
        r#"{"Exponential":{"initial":1.0,"factor":0.0}}"#,
        r#"{"StepDecay":{"initial":1.0,"every":0,"factor":0.5}}"#,
        r#"{"Cosine":{"initial":1.0,"last":-1.0,"steps":10}}"#,
        r#"{"AtLeast":{"floor":-1.0,"schedule":{"Constant":{"rate":1.0}}}}"#,
    ] {
        assert!(serde_json::from_str::<Schedule>(text).is_err(), "{text}");
    }
}
