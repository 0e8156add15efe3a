using Tensormesh.Web;

try
{
    if (args is ["token", .. var rest])
    {
        Console.WriteLine(TokenCommand.Run(rest, TimeProvider.System));
        return 0;
    }

    await using var web = WebHost.Build(args);
    await WebHost.PrepareAsync(web, CancellationToken.None);
    await web.RunAsync();
    return 0;
}
catch (SettingsException wrong)
{
    await Console.Error.WriteLineAsync($"tensormesh-web: {wrong.Message}");
    return 2;
}
