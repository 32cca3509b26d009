// The NestJS server whose protocol chatstream keeps, as its authors describe it: the official SDKs, Passport, rxjs.
// MongoDB takes the place of TypeORM, so that all servers here have the same database.
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { ConfigModule, ConfigService } from '@nestjs/config';
import { NestFactory } from '@nestjs/core';
import { PassportModule } from '@nestjs/passport';
import { MongoClient } from 'mongodb';
import { JwtStrategy } from './auth.js';
import { ChatController, ChatService, HealthController, LLMService } from './chat.js';

@Module({
  imports: [ConfigModule.forRoot({ isGlobal: true, ignoreEnvFile: true }), PassportModule],
  controllers: [ChatController, HealthController],
  providers: [
    ChatService,
    LLMService,
    JwtStrategy,
    {
      provide: 'DATABASE',
      inject: [ConfigService],
      useFactory: async (config: ConfigService) => {
        const client = await MongoClient.connect(config.getOrThrow('MONGODB_URI'));
        return client.db(config.getOrThrow('MONGODB_DATABASE'));
      },
    },
  ],
})
class AppModule {}

const app = await NestFactory.create(AppModule, { logger: ['error', 'warn'] });
app.enableCors({ origin: ['http://localhost:19006'], credentials: true });
await app.listen(Number(process.env.PORT), '127.0.0.1');
