export default {
  output: 'standalone',
  // The package loads a native module, which cannot be bundled.
  serverExternalPackages: ['feishu-feed-card'],
}
