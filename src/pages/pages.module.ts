import { Module } from '@nestjs/common';
import { Pages } from './pages';
import { PagesController } from './pages.controller';

/** Where LOGIN_PAGE is on: the login page, the account page, and their files. */
@Module({ controllers: [PagesController], providers: [Pages], exports: [Pages] })
export class PagesModule {}
