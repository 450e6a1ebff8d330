// An identity provider on loopback: a public client and the gateway as a confidential one, three people in two tenants, tokens for one resource, and keys that can be rotated.
// Usage: node provider.mjs RESOURCE REDIRECT_URI; prints its issuer when it listens.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [resource, redirectUri] = process.argv.slice(2);
const people = {
  alice: { tid: 'acme', roles: ['member'] },
  bob: { tid: 'acme', roles: ['operator'] },
  mallory: { tid: 'evil', roles: ['operator'] },
};

function newKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'ES256' };
}

function provider(issuer, keys) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'console',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code'],
      redirect_uris: [redirectUri],
      id_token_signed_response_alg: 'ES256',
    }, {
      client_id: 'gateway',
      client_secret: 'of the tests',
      application_type: 'native', // its port on loopback does not count
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['http://127.0.0.1/oauth/callback/corp'],
      id_token_signed_response_alg: 'ES256',
    }],
    claims: { openid: ['sub', 'tid', 'roles'] },
    conformIdTokenClaims: false,
    rotateRefreshToken: true,
    cookies: { keys: [randomUUID()] },
    pkce: { required: () => true },
    findAccount: (ctx, id) => (people[id] ? { accountId: id, claims: () => ({ sub: id, ...people[id] }) } : undefined),
    extraTokenClaims: (ctx, token) => people[token.accountId],
    features: {
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, asked) => {
          if (asked !== resource) throw new Error('unknown resource');
          return { scope: 'agent:* tool:*', accessTokenTTL: 600, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
        },
        useGrantedResource: () => true,
      },
    },
  });
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  let keys = [newKey()];
  let serve = provider(issuer, keys).callback();
  server.on('request', (request, response) => {
    if (request.url === '/test/rotate') keys = [newKey(), keys[0]]; // the new one signs, the old one is still published
    else if (request.url === '/test/withdraw') keys = [keys[0]];
    else return serve(request, response);
    serve = provider(issuer, keys).callback();
    return response.end(keys[0].kid);
  });
  console.log(issuer);
});
process.stdin.resume().on('end', () => process.exit(0)); // ends with whoever started it
