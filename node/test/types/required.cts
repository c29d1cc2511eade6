// The same from CommonJS.

import feishu = require('feishu-feed-card')
import { Client, type Outcome } from 'feishu-feed-card'
import { Sandbox } from 'feishu-feed-card/sandbox'

export const client: Client = new feishu.Client({ appId: 'cli_1', appSecret: 'secret' })
export const pinned: Promise<Outcome> = client.setBotTimeSensitive({ userIds: [], timeSensitive: true })
export const sandbox: Sandbox = Sandbox.start()
