<?php
/*
 * The upkeep script of the article (2010), put together again from its page: what
 * the page lost (brackets, closing braces, the list of names) is filled in, and
 * what PHP has dropped since is replaced by its successor (mysql_ by mysqli_,
 * ereg_replace by preg_replace). Changed beyond that: where Apache, the homes and
 * the database are, by the constants below, and $errarray and $fwrarray, which the
 * article reads from columns that its own table does not have.
 *
 *   php article.php add USER SERVER...   what the front end does for new hosts
 *   php article.php mkdir N              N mkdir jobs
 *   php article.php run                  one run of the script, as cron starts it
 */
$home   = getenv('BENCH_HOME');
$hosted = getenv('BENCH_HOSTED');
$reload = getenv('BENCH_RELOAD');

mysqli_report(MYSQLI_REPORT_OFF);
$sql_h = mysqli_connect('localhost', 'root', '', 'upkeep', 0, getenv('BENCH_SOCKET'));
if(!$sql_h)
 die("no database: ".mysqli_connect_error()."\n");

function q($sql)
{
 global $sql_h;
 $result = mysqli_query($sql_h, $sql);
 if($result === false)
  die(mysqli_error($sql_h)."\n");
 return $result;
}

function hostedUPKEEP($type, $data, $uid=0)
{
 global $sql_h;
 $data = serialize($data);

 $data = mysqli_real_escape_string($sql_h, $data);

 q("insert into `upkeep` (`uid`, `date`, `status`, `type`, `data`) values ('$uid', '".time()."', 'pending', '$type', '$data')");
}

function hostedUPKEEPMkdir($user, $group, $path)
{
 $data['user'] = $user;
 $data['group'] = $group;
 $data['path'] = $path;

 hostedUPKEEP('mkdir', $data);
}

function hostedVHOSTAddHost($user, $yuid, $appid, $server)
{
 global $home;
 $firewall = $errorpages = serialize(array());
 $date = time();

 q("insert into `virtual_hosts` (`user`, `date`, `yuid`, `appid`, `server`, `subof`, `firewall`, `errorpages`) values ('$user', '$date', '$yuid', '$appid', '$server', '0', '$firewall', '$errorpages')");
 $idgrabr = q("select * from `virtual_hosts` where `user` = '$user' and `server` = '$server'");
 $idgrabo = mysqli_fetch_object($idgrabr);

 hostedUPKEEPMkdir('root', 'root', "$home/$user");
 hostedUPKEEPMkdir($user, 'hosted', "$home/$user/$server");
 hostedUPKEEPMkdir($user, 'hosted', "$home/$user/$server/htdocs");
 hostedUPKEEPMkdir($user, 'hosted', "$home/$user/$server/log");
 hostedUPKEEPMkdir($user, 'hosted', "$home/$user/$server/cgi-bin");
 hostedUPKEEP('vhost', $idgrabo->id);
 hostedUPKEEP('notification', 'jobs pending notification', $yuid);
}

$forbidden_users = array('www', 'root', 'bin', 'daemon', 'apache', 'mysql');

function checkname($string)
{
 global $forbidden_users;
 foreach($forbidden_users as $fuse)
  if($fuse == strtolower($string))
   die("Forbidden User");
}

function run()
{
 global $home, $hosted, $reload;
 $result = q("select * from `upkeep` where `status` = 'pending' order by `date` asc");
 while($object = mysqli_fetch_object($result))
 {
  if($object->type == 'mkdir')
  {
   $data = unserialize($object->data);
   exec("mkdir -p ".escapeshellcmd($data['path']));
   exec("chown ".escapeshellcmd(preg_replace("/[^A-Za-z0-9]/", '', $data['user'])).":".escapeshellcmd(preg_replace("/[^A-Za-z0-9]/", '', $data['group']))." ".escapeshellcmd($data['path'])." 2>&1");
  }

  if($object->type == 'vhost')
  {
   $id = unserialize($object->data);
   $vhost_result = q("select * from `virtual_hosts` where `id` = '$id'");
   $vhost_object = mysqli_fetch_object($vhost_result);

   $domain = $vhost_object->server;
   $user = preg_replace("/[^A-Za-z0-9]/", '', $vhost_object->user);

   checkname($user);

   $errorpages = '';
   foreach(unserialize($vhost_object->errorpages) as $code => $loc)
    $errorpages .= "\n\tErrorDocument $code $loc";

   $firewall = '';
   foreach(unserialize($vhost_object->firewall) as $address)
    $firewall .= "\n\t\tDeny from $address";

   $domainesc = str_replace('.', '\.', $domain);

   $file = "<VirtualHost *:".getenv('BENCH_PORT').">
\tServerName $domain
\tServerAlias www.$domain
\tDocumentRoot $home/$user/$domain/htdocs
\tScriptAlias /cgi-bin/ $home/$user/$domain/cgi-bin/
\tErrorLog $home/$user/$domain/log/error_log
\tTransferLog $home/$user/$domain/log/access_log{$errorpages}
\t<IfModule mod_rewrite.c>
\t\tRewriteEngine on
\t\tRewriteCond %{REQUEST_METHOD} !^(GET|POST|HEAD)$
\t\tRewriteRule .* - [F]
\t\tRewriteCond %{HTTP_HOST} ^www\.$domainesc$ [NC]
\t\tRewriteRule ^(.*)\$ http://$domain/\$1 [R=307,L]
\t</IfModule>
\t<IfModule mod_access_compat.c>
\t\t<Location />
\t\tOrder Allow,Deny
\t\tAllow from all{$firewall}
\t\t</Location>
\t</IfModule>
</VirtualHost>
";

   $fh = fopen("$hosted/{$user}_{$domain}.conf", 'w');
   fwrite($fh, $file);
   fclose($fh);

   exec("$reload 2>&1");
  }

  q("update `upkeep` set `status` = 'completed', `completed` = '".time()."' where `id` = '{$object->id}'");
 }
}

switch($argv[1])
{
 case 'add':
  for($i = 3; $i < $argc; $i++)
   hostedVHOSTAddHost($argv[2], 1, 1, $argv[$i]);
  break;
 case 'addmany':
  for($i = 0; $i < $argv[4]; $i++)
   hostedVHOSTAddHost($argv[2], 1, 1, sprintf($argv[3], $i));
  break;
 case 'mkdir':
  for($i = 0; $i < $argv[2]; $i++)
   hostedUPKEEPMkdir('games', 'games', "$home/games/dir$i");
  break;
 case 'run':
  run();
  break;
}
