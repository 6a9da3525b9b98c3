//! Asks for completions, in a closed loop or at a rate, and measures what comes back.
//!
//! ```sh
//! rig_load --port 8080 --connections 64 --seconds 3
//! rig_load --port 8080 --connections 512 --rate 100 --stream --chunks 25 --interval-us 40000
//! rig_load --port 8080 --connections 1024 --stream --chunks 1000000 --interval-us 200000 --hold < some-pipe
//! ```
//!
//! Closed loop: each connection asks again when its answer has come. With a rate the loop is open: a request is sent when
//! it is due, and its latency counts from then, so that a gateway that stalls cannot hide it. One line of JSON at the
//! end, with times in microseconds.

#[cfg(target_os = "linux")]
mod exchange;
#[cfg(target_os = "linux")]
mod flags;
#[cfg(target_os = "linux")]
mod generator;
#[cfg(target_os = "linux")]
mod measure;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use clap::Parser;

    let flags = flags::Flags::parse();
    gateway_benches::wire::raise_file_limit()?;
    println!("{}", generator::Generator::new(&flags)?.run()?);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("rig_load: this needs Linux");
}
