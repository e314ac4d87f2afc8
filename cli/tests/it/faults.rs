//! Processes that die, come back, are asked to end, or are not who they should
//! be: what their clients and their neighbours see of it.

mod center;
mod game;
mod gateway;
mod keys;
mod load;
mod map;
mod slow_game;
mod thousand;

use crate::cluster::Cluster;
use crate::cluster::player::Player;

/// Players that are logged in when something happens.
const PLAYERS: usize = 3;

/// Series of how many sessions a role knows.
const GATEWAY_SESSIONS: &str = "sallyport_gateway_sessions";
const CENTER_SESSIONS: &str = "sallyport_center_sessions";
const GAME_SESSIONS: &str = "sallyport_game_sessions";

/// The account of a player.
fn account(index: usize) -> String {
    format!("player-{index}")
}

/// All of them, with some messages behind them.
fn players(cluster: &Cluster) -> Vec<Player> {
    let mut players: Vec<_> = (0..PLAYERS)
        .map(|index| Player::login(cluster, &account(index)))
        .collect();
    for player in &mut players {
        for round in 0..20_u8 {
            player.round_trip(&[round; 64]);
        }
    }
    players
}
