// A TypeScript SDK of MCP at one server, driven by lines of JSON: each command on stdin has one answer on stdout.
// Usage: node sdk_client.mjs v1|v2 URL [METADATA], with client metadata as JSON. Commands: connect, finish, tools, call, spoil, tokens.
import { createInterface } from 'node:readline';

const [version, url, metadata = '{}'] = process.argv.slice(2);
const sdk =
  version === 'v1'
    ? { ...(await import('@modelcontextprotocol/sdk/client/index.js')), ...(await import('@modelcontextprotocol/sdk/client/streamableHttp.js')) }
    : await import('@modelcontextprotocol/client');
const { dpop: bound, ...registered } = JSON.parse(metadata);
const stored = {};
let page = '';

class Provider {
  redirectUrl = 'http://localhost:8090/callback';
  clientMetadata = { client_name: `TypeScript SDK ${version}`, redirect_uris: [this.redirectUrl], ...registered };
  state() { return 'the state'; }
  clientInformation() { return stored.client; }
  saveClientInformation(client) { stored.client = client; }
  tokens() { return stored.tokens; }
  saveTokens(tokens) { stored.tokens = tokens; }
  redirectToAuthorization(to) { page = String(to); }
  saveCodeVerifier(verifier) { stored.verifier = verifier; }
  codeVerifier() { return stored.verifier; }
  saveDiscoveryState(found) { stored.discovery = found; }
  discoveryState() { return stored.discovery; }
}
if (bound) Provider.prototype.dpop = () => (stored.dpop ??= sdk.DpopSession.create());

const provider = new Provider();
let transport, client;
async function connect() {
  transport = new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  client = new sdk.Client({ name: 'test', version: '1' });
  await client.connect(transport);
  return 'connected';
}
const commands = {
  connect,
  finish: async ({ answer }) => {
    const found = new URL(answer).searchParams;
    if (found.get('state') !== 'the state') throw new Error('the state is of another request');
    await (version === 'v1' ? transport.finishAuth(found.get('code')) : transport.finishAuth(found));
    return 'signed in';
  },
  tools: async () => (await client.listTools()).tools.map((tool) => tool.name),
  call: async ({ name }) => (await client.callTool({ name, arguments: {} })).content,
  spoil: async () => { stored.tokens = { ...stored.tokens, access_token: 'spoilt' }; },
  tokens: async () => stored.tokens,
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  page = '';
  let answer;
  try {
    answer = { result: await commands[command.do](command) };
  } catch (error) {
    answer = { error: `${error.constructor.name}: ${error.message}` };
  }
  console.log(JSON.stringify({ ...answer, page }));
}
process.exit(0);
