using Tensormesh.Devices.Worker;

if (ProbeWorker.TryRun(args)) return 0;
Console.Error.WriteLine("device-probe-worker is started by tensormesh-agent, and by nobody else");
return 2;
