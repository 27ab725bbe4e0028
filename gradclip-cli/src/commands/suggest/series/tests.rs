//! Logs as people have them.

use super::{Log, Logged, parse};

fn norms(text: &str, column: Option<&str>) -> Result<Vec<(u64, f64)>, String> {
    Ok(parse(text.as_bytes(), column)?.norms.into_iter().map(|Logged { line, norm }| (line, norm)).collect())
}

#[test]
fn numbers_csv_and_json_lines() {
    type Read<'a> = &'a [(u64, f64)];
    let cases: [(&str, Option<&str>, Read<'_>); 13] = [
        ("1.5\n\n# a comment\n 2e3 \r\n0\n", None, &[(1, 1.5), (4, 2000.0), (5, 0.0)]),
        ("\u{feff}3\n", None, &[(1, 3.0)]),
        ("grad_norm\n1\n2\n", None, &[(2, 1.0), (3, 2.0)]),
        ("step,loss,Grad-Norm\n1,9,0.5\n2,8,0.25\n", None, &[(2, 0.5), (3, 0.25)]),
        ("step,loss,train/grad_norm\n1,9,0.5\n", None, &[(2, 0.5)]),
        ("a,b\n1,2\n", Some("b"), &[(2, 2.0)]),
        ("when,what\n\"Mon, 1\",3\n", None, &[(2, 3.0)]),
        ("step\tnorm\n1\t4\n2\t\n3\t5\n", None, &[(2, 4.0), (4, 5.0)]),
        ("step;norm\n1;4\n", None, &[(2, 4.0)]),
        (
            "{\"loss\": 2.0, \"grad_norm\": 1.5}\n{\"eval_loss\": 3}\n{\"grad_norm\": 2}\n",
            None,
            &[(1, 1.5), (3, 2.0)],
        ),
        ("{\"x\": \"NaN \\\" NaN\", \"g\": 1}\n{\"x\": \"y\", \"g\": 2}", None, &[(1, 1.0), (2, 2.0)]),
        ("{\"a\": 1, \"b\": 2}", Some("b"), &[(1, 2.0)]),
        ("{\"norm\": 1e400}\n{\"norm\": 1}", None, &[]),
    ];
    for (text, column, expected) in cases {
        match norms(text, column) {
            Ok(got) => assert_eq!(got, expected, "{text}"),
            // JSON has no number this large, and no norm may be lost.
            Err(error) => assert!(expected.is_empty(), "{text}: {error}"),
        }
    }
    let left_out = parse(b"step,norm\n1,\n2,5\n", None).unwrap();
    assert_eq!((left_out.without, left_out.column.as_deref()), (1, Some("norm")));
    assert_eq!(parse(b"", None), Ok(Log::default()));
}

#[test]
fn what_is_not_finite_stays_so() {
    for text in [
        "nan\n-0\ninf\n",
        "norm\nNaN\n0\nInfinity\n",
        "{\"norm\": NaN}\n{\"norm\": 0}\n{\"norm\": Infinity}\n",
    ] {
        let got: Vec<f64> = norms(text, None).unwrap().into_iter().map(|(_, norm)| norm).collect();
        assert!(got[0].is_nan() && got[1] == 0.0 && got[2] == f64::INFINITY, "{text}: {got:?}");
    }
}

#[test]
fn errors_say_where_and_what() {
    let cases: [(&str, Option<&str>, &str); 13] = [
        ("1\nx\n", None, "line 2: expected a norm, given `x`"),
        ("1\n-2\n", None, "line 2: expected a norm, which is 0 or more"),
        ("1\n", Some("a"), "--column `a`"),
        ("a,b\n1,2\n", None, "the columns are `a`, `b`"),
        ("a,b\n1,2\n", Some("c"), "--column `c`: expected one of the columns, which are `a`, `b`"),
        ("norm,grad_norm\n1,2\n", None, "the columns are `norm`, `grad_norm`"),
        ("a,a\n1,2\n", Some("a"), "two columns"),
        ("1,2\n3,4\n", None, "names of the columns"),
        ("step,norm\n1,2\n3\n", None, "expected CSV"),
        ("step,norm\n1,abc\n", None, "line 2: expected a norm, given `abc`"),
        ("{\"a\": 1}\n{oops\n", None, "line 2: expected one JSON object a line"),
        ("{\"a\": 1, \"b\": 2}\n", None, "the columns are `a`, `b`"),
        ("{\"norm\": [1]}\n", None, "line 1: expected a norm, given [1]"),
    ];
    for (text, column, says) in cases {
        let error = norms(text, column).unwrap_err();
        assert!(error.contains(says), "{text}: expected `{says}` in: {error}");
    }
    assert!(parse(b"\xff\xfe", None).unwrap_err().contains("neither"));
}
