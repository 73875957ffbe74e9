//! The guard over ports.

use super::*;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Book {
    held: Vec<(u8, IpAddr, u16)>,
    refused: Vec<u16>,
    asked: usize,
}

struct Guard(Arc<Mutex<Book>>);

impl PortGuard for Guard {
    fn hold(&mut self, protocol: u8, addr: IpAddr, port: u16, _active: bool) -> Result<()> {
        let mut book = self.0.lock().unwrap();
        book.asked += 1;
        if port < 1024 {
            return Err(Errno::EACCES);
        }
        if book.refused.contains(&port) {
            return Err(Errno::EADDRINUSE);
        }
        book.held.push((protocol, addr, port));
        Ok(())
    }

    fn release(&mut self, protocol: u8, addr: IpAddr, port: u16) {
        let mut book = self.0.lock().unwrap();
        let at = book.held.iter().position(|h| *h == (protocol, addr, port));
        book.held.remove(at.expect("only what was held is released"));
    }
}

fn guarded() -> (Net, Arc<Mutex<Book>>) {
    let mut a = config(1);
    a.ephemeral_ports = (5000, 5009);
    let mut net = Net::with(a, config(2));
    let book = Arc::new(Mutex::new(Book::default()));
    net.a.set_guard(Box::new(Guard(book.clone())));
    (net, book)
}

#[test]
fn what_the_guard_refuses_is_refused() {
    let (mut net, book) = guarded();
    book.lock().unwrap().refused = vec![8080];
    let h = tcp(&mut net.a);
    assert_eq!(net.a.bind(h, addr(1, 80)), Err(Errno::EACCES));
    assert_eq!(net.a.bind(h, addr(1, 8080)), Err(Errno::EADDRINUSE));
    net.a.bind(h, addr(1, 8081)).unwrap();
    let u = udp(&mut net.a);
    assert_eq!(net.a.bind(u, addr(1, 8080)), Err(Errno::EADDRINUSE));
    net.a.bind(u, addr(1, 8082)).unwrap();
    let one = addr(1, 0).ip();
    assert_eq!(book.lock().unwrap().held, [(6, one, 8081), (17, one, 8082)]);
    net.a.close(h).unwrap();
    net.a.close(u).unwrap();
    assert!(book.lock().unwrap().held.is_empty());
}

#[test]
fn a_port_is_held_until_time_wait_is_over() {
    let (mut net, book) = guarded();
    book.lock().unwrap().refused = (5000..5009).collect();
    let listener = listen(&mut net.b, 80, 1);
    // Only 5009 is left to draw.
    let (client, server) = net.join(listener, 80);
    assert_eq!(book.lock().unwrap().held, [(6, addr(1, 0).ip(), 5009)]);
    net.a.close(client).unwrap();
    net.run();
    net.b.close(server).unwrap();
    net.run();
    assert_eq!((net.a.stack.tcp.connections(), net.a.stack.tcp.waiting()), (0, 1));
    assert_eq!(book.lock().unwrap().held.len(), 1);
    net.pass(Duration::from_secs(61));
    assert!(book.lock().unwrap().held.is_empty());
}

#[test]
fn accepted_connections_keep_the_port_of_a_closed_listener() {
    let (mut net, book) = guarded();
    let listener = listen(&mut net.a, 8000, 1);
    let client = tcp(&mut net.b);
    let _ = net.b.connect(client, addr(1, 8000));
    net.run();
    let (server, _) = net.a.accept(listener).unwrap();
    net.a.close(listener).unwrap();
    assert_eq!(book.lock().unwrap().held.len(), 1);
    net.b.close(client).unwrap();
    net.run();
    net.a.close(server).unwrap();
    net.run();
    assert!(book.lock().unwrap().held.is_empty());
    assert_eq!(book.lock().unwrap().asked, 1);
}
