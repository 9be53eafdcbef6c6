-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)
/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS `accounts`;
CREATE TABLE `accounts` (`id` int(11) NOT NULL);
INSERT INTO `accounts` VALUES (1);
DROP TABLE IF EXISTS `upkeep`;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `upkeep` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `uid` int(11) NOT NULL DEFAULT 0,
  `date` int(11) NOT NULL DEFAULT 0,
  `completed` int(11) NOT NULL DEFAULT 0,
  `status` varchar(30) NOT NULL,
  `type` varchar(30) NOT NULL,
  `data` longtext NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=18 DEFAULT CHARSET=latin1;
LOCK TABLES `upkeep` WRITE;
INSERT INTO `upkeep` VALUES
(10,0,1268092800,1268093100,'completed','mkdir','a:3:{s:4:\"user\";s:4:\"root\";s:5:\"group\";s:4:\"root\";s:4:\"path\";s:10:\"/home/acme\";}'),
(11,0,1268092800,0,'pending','mkdir','a:3:{s:4:\"user\";s:4:\"acme\";s:5:\"group\";s:6:\"hosted\";s:4:\"path\";s:30:\"/home/acme/example.test/htdocs\";}'),
(12,0,1268092800,0,'pending','mkdir','a:3:{s:4:\"user\";s:4:\"acme\";s:5:\"group\";s:6:\"hosted\";s:4:\"path\";s:17:\"/home/acme/backup\";}'),
(13,0,1268092800,0,'pending','vhost','i:1;'),
(14,0,1268092800,0,'pending','mkdir','a:3:{s:4:\"user\";s:4:\"acme\";s:5:\"group\";s:6:\"hosted\";s:4:\"path\";s:11:\"/etc/cron.d\";}'),
(15,0,1268092800,0,'pending','mkdir','a:3:{s:4:\"user\";s:4:\"acme\";s:5:\"group\";s:6:\"hosted\";s:4:\"path\";s:20:\"/home/acme/../../etc\";}'),
(16,0,1268092800,0,'pending','shell','s:8:\"rm -rf /\";'),
(17,7,1268092800,0,'pending','notification','s:25:\"jobs pending notification\";');
UNLOCK TABLES;
CREATE TABLE IF NOT EXISTS `virtual_hosts` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `date` int(11) NOT NULL,
  `user` varchar(255) NOT NULL,
  `yuid` int(11) NOT NULL,
  `appid` int(11) NOT NULL,
  `server` char(255) NOT NULL,
  `environment_variable` char(255) DEFAULT NULL,
  `subof` int(11) NOT NULL,
  `firewall` longtext NOT NULL,
  `errorpages` longtext NOT NULL,
  PRIMARY KEY (`id`),
  KEY `yuid` (`yuid`),
  KEY `server` (`server`)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
INSERT INTO `virtual_hosts` VALUES
(1,1268092800,'acme',7,1,'Example.test','APP_ENV=live',0,'a:4:{i:0;s:9:\"192.0.2.7\";i:1;s:6:\"198.51\";i:2;s:25:\"203.0.113.9/255.255.255.0\";i:3;s:9:\"evil.test\";}','a:2:{i:404;s:13:\"/missing.html\";i:500;s:19:\"%{file:/etc/passwd}\";}'),
(2,1268092800,'acme',7,1,'shop.example.test',NULL,1,'a:0:{}','a:0:{}'),
(3,1268092800,'root',8,1,'root.test',NULL,0,'a:0:{}','a:0:{}'),
(4,1268092800,'mallory',9,1,'x.test\"\nInclude /etc/passwd',NULL,0,'a:0:{}','a:0:{}');
