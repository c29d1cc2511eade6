import { Client } from 'feishu-feed-card'

const [chat, user] = process.argv.slice(2)
// Clash's mixed port speaks SOCKS and HTTP. With socks5h Clash resolves names, so that its rules for domains apply.
const client = Client.fromEnv({ proxy: process.env.CLASH ?? 'socks5h://127.0.0.1:7890' })
const outcome = await client.setTimeSensitive({ feedCardId: chat, userIds: [user], timeSensitive: true })
console.log(outcome.ok)
