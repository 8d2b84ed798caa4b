//! The simplest there is: write a key, read it, list its folder, delete it.
//!
//! `cargo run -p consul-client --example keys` asks the agent of `CONSUL_HTTP_ADDR`, or that on 127.0.0.1:8500.

use consul_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kv = Client::from_env()?.kv();
    kv.put("example/keys/colour", "blue").await?;
    // Values are bytes, and keys any text.
    kv.put("example/keys/a b?", vec![0, 159, 146, 150]).await?;

    let found = kv.get("example/keys/colour").await?;
    println!("as of index {:?}", found.meta.index);
    let colour = found.value.ok_or("somebody deleted it")?;
    println!("the colour is {}", std::str::from_utf8(&colour.value)?);
    println!("there are {:?}", kv.keys("example/keys/").await?.value);

    // This key and no other; a folder is deleted by `delete_tree`.
    kv.delete("example/keys/colour").await?;
    println!("gone: {}", kv.get("example/keys/colour").await?.value.is_none());
    kv.delete_tree("example/keys/").await?;
    println!("left: {}", kv.keys("example/keys/").await?.value.len());
    Ok(())
}
