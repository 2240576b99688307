// The peer of `bench identity`: oidc-provider with the store in memory that it comes with. The first argument names its module;
// its address is printed when it listens. A resource names how its access tokens are made: `urn:bench:EdDSA`, `urn:bench:RS256`
// (RFC 9068) or `urn:bench:opaque`, since it does not introspect what is signed.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

// Standard output is for the address alone.
console.log = console.error;
console.info = console.error;

const { Provider } = await import(pathToFileURL(process.argv[2]));
const CLIENTS = 100;
const RESOURCE = 'urn:bench:';

const key = (kind, options, alg) => {
  const { privateKey } = generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: alg };
};

const clients = Array.from({ length: CLIENTS }, (_, number) => ({
  client_id: `bench-${number + 1}`,
  client_secret: `sps_bench-${number + 1}`,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
}));

const resourceServer = (resource) => {
  const format = resource.slice(RESOURCE.length);
  const common = { scope: 'user', audience: resource, accessTokenTTL: 3600 };
  return format === 'opaque'
    ? { ...common, accessTokenFormat: 'opaque' }
    : { ...common, accessTokenFormat: 'jwt', jwt: { sign: { alg: format } } };
};

const server = createServer();
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`http://localhost:${port}`, {
    clients,
    jwks: { keys: [key('ed25519', {}, 'EdDSA'), key('rsa', { modulusLength: 2048 }, 'RS256')] },
    scopes: ['user'],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => resourceServer(resource),
      },
    },
  });
  server.on('request', provider.callback());
  process.stdout.write(`127.0.0.1:${port}\n`);
});
// Nobody is left who could end it.
process.stdin.on('end', () => process.exit()).resume();
