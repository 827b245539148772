//! The guard in `core`: it never panics, it says what it should of known values, and what it lets
//! through is, read back by the format's own parser, that value and nothing else.
//!
//! ```text
//! corpus     the lines of fixtures/injection      strategy  values made from them and from grammars
//! subject    a value as the guard gets it         render    what a host has then, read back
//! ```
//!
//! | module | holds that |
//! |---|---|
//! | `verdict` | every known value gets its verdict, and no rule is there for nothing |
//! | `round` | what is rendered reads back as what was meant, also where the guard would refuse it |
//! | `broken` | the tests of `round` fail when a renderer is broken |
//! | `plain` | the same, of the blocks whose values have a closed grammar |
//! | `argv` | what a command is run with is what was meant |
//! | `again` | twice is as once |
//! | `order` | the order of layers does not matter |
//! | `hop` | operator and agent come to the same verdict |
//! | `bounds` | no input panics, and none takes more than linear time |
//! | `grammar` | what is made as a specification says is let through, and what is let through is of that form |
//!
//! `PROPTEST_CASES` sets how many cases each property tries. What has failed once is kept beside the
//! module, in a file that ends in `.regressions`, and tried first.

#[path = "guard/again.rs"]
mod again;
#[path = "guard/argv.rs"]
mod argv;
#[path = "guard/bounds.rs"]
mod bounds;
#[path = "guard/broken.rs"]
mod broken;
#[path = "guard/corpus.rs"]
mod corpus;
#[path = "guard/grammar.rs"]
mod grammar;
#[path = "guard/hop.rs"]
mod hop;
#[path = "guard/order.rs"]
mod order;
#[path = "guard/plain.rs"]
mod plain;
#[path = "guard/render.rs"]
mod render;
#[path = "guard/round.rs"]
mod round;
#[path = "guard/strategy.rs"]
mod strategy;
#[path = "guard/subject.rs"]
mod subject;
#[path = "guard/verdict.rs"]
mod verdict;
