// Express with express-session: `node server.js STORE URL PORT`. Settings and reasons: ../README.md.
"use strict";

const { randomBytes } = require("node:crypto");
const express = require("express");
const session = require("express-session");

const TWO_WEEKS_S = 14 * 24 * 3600;
const PAD = "x".repeat(270);

async function openStore(name, url) {
  if (name === "redis") {
    const { RedisStore } = require("connect-redis");
    const client = require("redis").createClient({ url });
    client.on("error", (error) => console.error(error.message));
    await client.connect();
    return new RedisStore({ client, ttl: TWO_WEEKS_S, disableTouch: true });
  }
  if (name === "mongo") {
    const { MongoStore } = require("connect-mongo");
    const { MongoClient } = require("mongodb");
    const client = await new MongoClient(url).connect();
    return MongoStore.create({ client, ttl: TWO_WEEKS_S, touchAfter: 24 * 3600 });
  }
  const store = new session.MemoryStore();
  // Its touch parses and serialises the session again at each read. A store may omit the method.
  store.touch = undefined;
  return store;
}

function anonymous(res) {
  res.status(401).type("text").send("anonymous");
}

function addRoutes(app) {
  app.get("/start", (req, res) => {
    Object.assign(req.session, { name: "somebody", pad: PAD, user: "somebody" });
    res.type("text").send("somebody");
  });

  app.get("/read", (req, res) => {
    if (!req.session.name) return anonymous(res);
    res.type("text").send(req.session.name);
  });

  app.get("/write", (req, res) => {
    if (!req.session.name) return anonymous(res);
    req.session.count = (req.session.count || 0) + 1;
    res.type("text").send("hello");
  });

  app.get("/login", (req, res, next) => {
    if (!req.session.name) return anonymous(res);
    const { cookie, ...data } = req.session;
    req.session.regenerate((error) => {
      if (error) return next(error);
      Object.assign(req.session, data, { user: "somebody" });
      res.type("text").send("hello");
    });
  });
}

async function main(name, url, port) {
  console.warn = () => {}; // the warning of express-session about MemoryStore; ../README.md repeats it
  const app = express();
  app.disable("x-powered-by");
  app.get("/bare", (req, res) => res.type("text").send("hello"));
  const store = await openStore(name, url);
  const cookie = { httpOnly: true, sameSite: "lax" };
  const secret = randomBytes(32).toString("hex");
  app.use(session({ store, secret, cookie, resave: false, saveUninitialized: false }));
  addRoutes(app);
  app.listen(Number(port), "127.0.0.1", (error) => {
    if (error) throw error;
    console.log("ready");
  });
}

main(...process.argv.slice(2));
